// From a slice's logits to their cross-entropy and, in their place, its gradient.
//
// Shapes: S tokens of a slice, V vocabulary.

#include <cmath>
#include <cstdlib>

#include "vector.h"

namespace {

// logits (S, V) become (softmax - onehot(target)) * scale; returns the sum of -ln p of the targets.
template <typename T>
double cross_entropy(T* logits, const int64_t* target, float scale, int S, int V) {
  float* row = (float*)std::aligned_alloc(64, (V * 4 + 63) / 64 * 64 + 64);
  int whole = V / W * W;
  double nats = 0;
  for (int i = 0; i < S; i++) {
    T* x = logits + (long)i * V;
    vf most = splat(-__builtin_inff());
    for (int j = 0; j < whole; j += W) most = larger(most, load(x + j));
    float top = largest(most);
    float rest[W];
    for (int j = whole; j < V; j++) {
      float y = load_part(x + j, 1)[0];
      rest[j - whole] = y;
      top = top > y ? top : y;
    }
    float at_target = load_part(x + target[i], 1)[0];
    vf total{};
    for (int j = 0; j < whole; j += W) {
      vf e = vexp(load(x + j) - top);
      store(row + j, e);
      total += e;
    }
    float sum_ = sum(total);
    for (int j = whole; j < V; j++) {
      float e = vexp(splat(rest[j - whole] - top))[0];
      row[j] = e;
      sum_ += e;
    }
    nats += top + std::log(sum_) - at_target;
    float factor = scale / sum_;
    row[target[i]] -= sum_;
    for (int j = 0; j < whole; j += W) store(x + j, load(row + j) * factor);
    for (int j = whole; j < V; j++) store_part(x + j, splat(row[j] * factor), 1);
  }
  std::free(row);
  return nats;
}

}  // namespace

extern "C" {
double cross_entropy_fp32(float* logits, const int64_t* target, float scale, int S, int V) {
  return cross_entropy(logits, target, scale, S, V);
}
double cross_entropy_bf16(bf16* logits, const int64_t* target, float scale, int S, int V) {
  return cross_entropy(logits, target, scale, S, V);
}
}
