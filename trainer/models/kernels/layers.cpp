// What lies between the matrix products of a layer: root-mean-square norms with the addition before them, and SwiGLU.
//
// Shapes: N tokens, D width, F feed-forward width. The residual stream is fp32; T, what the products read and write,
// is fp32 or bf16.

#include <cmath>

#include "vector.h"

namespace {

// f(d, n) for each vector of a row, n of its values wanted.
#define FOR_ROW(width)                         \
  for (int d = 0, n = 0; d < (width); d += n)  \
    if ((n = (width)-d < W ? (width)-d : W), true)

template <typename T>
INLINE vf get(const T* p, int n) {
  return n == W ? load(p) : load_part(p, n);
}

template <typename T>
INLINE void put(T* p, vf x, int n) {
  if (n == W) store(p, x);
  else store_part(p, x, n);
}

// sum = x + factor * block where there is a block, normed = sum / rms(sum) * weight.
template <typename T>
void norm_forward(const float* x, const T* block, float factor, const float* weight, float eps, float* sum_, T* normed,
                  float* inverse, int N, int D) {
  for (int i = 0; i < N; i++) {
    const float* xi = x + (long)i * D;
    vf squares{};
    if (block) {
      float* si = sum_ + (long)i * D;
      const T* bi = block + (long)i * D;
      FOR_ROW(D) {
        vf y = get(xi + d, n) + factor * get(bi + d, n);
        put(si + d, y, n);
        squares += y * y;
      }
      xi = si;
    } else {
      FOR_ROW(D) {
        vf y = get(xi + d, n);
        squares += y * y;
      }
    }
    float r = 1.0f / std::sqrt(sum(squares) / D + eps);
    inverse[i] = r;
    T* ni = normed + (long)i * D;
    FOR_ROW(D) put(ni + d, get(xi + d, n) * r * get(weight + d, n), n);
  }
}

// Of the sum (grad_sum may be null) and of the normed row to that of x, of the block (may be null) and the weight.
template <typename T>
void norm_backward(const float* grad_sum, const T* grad_normed, const float* y, const float* weight,
                   const float* inverse, float factor, float* grad_x, T* grad_block, float* grad_weight, int N, int D) {
  for (int d = 0; d < D; d++) grad_weight[d] = 0;
  for (int i = 0; i < N; i++) {
    const float* yi = y + (long)i * D;
    const T* gi = grad_normed + (long)i * D;
    float r = inverse[i];
    vf dots{};
    FOR_ROW(D) {
      vf g = get(gi + d, n), yv = get(yi + d, n);
      dots += g * get(weight + d, n) * yv;
      put(grad_weight + d, get(grad_weight + d, n) + g * yv * r, n);
    }
    float along = sum(dots) * r * r * r / D;
    float* gx = grad_x + (long)i * D;
    FOR_ROW(D) {
      vf g = get(gi + d, n) * get(weight + d, n) * r - get(yi + d, n) * along;
      if (grad_sum) g += get(grad_sum + (long)i * D + d, n);
      put(gx + d, g, n);
      if (grad_block) put(grad_block + (long)i * D + d, g * factor, n);
    }
  }
}

// out = silu(gate) * up; a row of gate_up is all gates, then all ups.
template <typename T>
void swiglu_forward(const T* gate_up, T* out, int N, int F) {
  for (int i = 0; i < N; i++) {
    const T *gate = gate_up + 2L * i * F, *up = gate + F;
    FOR_ROW(F) {
      vf g = get(gate + d, n);
      put(out + (long)i * F + d, g * sigmoid(g) * get(up + d, n), n);
    }
  }
}

template <typename T>
void swiglu_backward(const T* gate_up, const T* grad_out, T* grad_gate_up, int N, int F) {
  for (int i = 0; i < N; i++) {
    const T *gate = gate_up + 2L * i * F, *up = gate + F;
    T *grad_gate = grad_gate_up + 2L * i * F, *grad_up = grad_gate + F;
    FOR_ROW(F) {
      vf g = get(gate + d, n), u = get(up + d, n), go = get(grad_out + (long)i * F + d, n);
      vf s = sigmoid(g);
      put(grad_gate + d, go * u * s * (1.0f + g * (1.0f - s)), n);
      put(grad_up + d, go * g * s, n);
    }
  }
}

}  // namespace

#define FOR_TYPE(T, name)                                                                                              \
  void norm_forward_##name(const float* x, const T* block, float factor, const float* weight, float eps, float* sum_, \
                           T* normed, float* inverse, int N, int D) {                                                 \
    norm_forward(x, block, factor, weight, eps, sum_, normed, inverse, N, D);                                         \
  }                                                                                                                    \
  void norm_backward_##name(const float* grad_sum, const T* grad_normed, const float* y, const float* weight,         \
                            const float* inverse, float factor, float* grad_x, T* grad_block, float* grad_weight,     \
                            int N, int D) {                                                                           \
    norm_backward(grad_sum, grad_normed, y, weight, inverse, factor, grad_x, grad_block, grad_weight, N, D);          \
  }                                                                                                                    \
  void swiglu_forward_##name(const T* gate_up, T* out, int N, int F) { swiglu_forward(gate_up, out, N, F); }          \
  void swiglu_backward_##name(const T* gate_up, const T* grad_out, T* grad_gate_up, int N, int F) {                   \
    swiglu_backward(gate_up, grad_out, grad_gate_up, N, F);                                                           \
  }

extern "C" {
FOR_TYPE(float, fp32)
FOR_TYPE(bf16, bf16)
}
