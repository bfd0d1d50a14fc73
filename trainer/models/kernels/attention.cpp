// Causal attention with its rotation, forward and backward, in fp32 whatever the precision of its input.
//
// It reads queries, keys and values where the projection left them and writes where the next one reads: rotating,
// splitting, transposing and copying cost more at small widths than attending. Of a block of ROWS queries the scores
// against all keys up to the block's end are held at once, in the second-level cache; keys beyond it are not touched.
//
// Shapes: B sequences, T positions, A = H + 2K heads of queries, keys and values, E head width, P = E rounded up to W.

#include <cmath>
#include <cstdlib>
#include <algorithm>

#include "vector.h"

namespace {

constexpr int ROWS = 24;

inline int up(int n) { return (n + W - 1) / W * W; }

// C[M rows of V vectors] = or += A B, A's element (m, k) at a[m * row + k * col].
template <int M, int V, bool ADD>
INLINE void tile(const float* a, int row, int col, const float* b, int ldb, float* c, int ldc, int K) {
  vf acc[M][V];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) acc[m][v] = ADD ? load(c + m * ldc + v * W) : vf{};
  for (int k = 0; k < K; k++) {
    vf bv[V];
    for (int v = 0; v < V; v++) bv[v] = load(b + (long)k * ldb + v * W);
    for (int m = 0; m < M; m++) {
      vf am = splat(a[m * row + k * col]);
      for (int v = 0; v < V; v++) acc[m][v] += am * bv[v];
    }
  }
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) store(c + m * ldc + v * W, acc[m][v]);
}

template <int V, bool ADD>
void columns(const float* a, int row, int col, const float* b, int ldb, float* c, int ldc, int M, int K) {
  constexpr int FULL = W == 16 ? (V == 1 ? 12 : V == 2 ? 12 : 6) : (V == 1 ? 8 : V == 2 ? 5 : 3);
  int m = 0;
  for (; m + FULL <= M; m += FULL) tile<FULL, V, ADD>(a + m * row, row, col, b, ldb, c + m * ldc, ldc, K);
  for (; m + 2 <= M; m += 2) tile<2, V, ADD>(a + m * row, row, col, b, ldb, c + m * ldc, ldc, K);
  for (; m < M; m++) tile<1, V, ADD>(a + m * row, row, col, b, ldb, c + m * ldc, ldc, K);
}

// C (M, N) = or += A (M, K) B (K, N); N a multiple of W.
template <bool ADD>
void product(const float* a, int row, int col, const float* b, int ldb, float* c, int ldc, int M, int N, int K) {
  int n = 0;
  for (; n + 4 * W <= N; n += 4 * W) columns<4, ADD>(a, row, col, b + n, ldb, c + n, ldc, M, K);
  for (; n + 2 * W <= N; n += 2 * W) columns<2, ADD>(a, row, col, b + n, ldb, c + n, ldc, M, K);
  for (; n < N; n += W) columns<1, ADD>(a, row, col, b + n, ldb, c + n, ldc, M, K);
}

// One head's rows, T of E at a distance of `stride`, to fp32 rows of P with zeros after E.
template <typename T_>
void take(const T_* from, long stride, float* to, int T, int E, int P) {
  for (int t = 0; t < T; t++) {
    const T_* x = from + t * stride;
    float* y = to + (long)t * P;
    int e = 0;
    for (; e + W <= E; e += W) store(y + e, load(x + e));
    if (e < E) store(y + e, load_part(x + e, E - e));
  }
}

template <typename T_>
void give(const float* from, T_* to, long stride, int T, int E, int P) {
  for (int t = 0; t < T; t++) {
    const float* x = from + (long)t * P;
    T_* y = to + t * stride;
    int e = 0;
    for (; e + W <= E; e += W) store(y + e, load(x + e));
    if (e < E) store_part(y + e, load(x + e), E - e);
  }
}

// Each pair (e, e + E/2) turned by its position's angle, backwards if `sign` is -1, and times `scale`: cos and sin (T, E)
// are alike in both halves, but that the first half of sin is negated. Without them only the scale is applied.
void turn(float* x, const float* cos, const float* sin, float sign, float scale, int T, int E, int P) {
  int half = E / 2;
  if (!cos) {
    for (long i = 0; i < (long)T * P; i++) x[i] *= scale;
    return;
  }
  for (int t = 0; t < T; t++) {
    float *a = x + (long)t * P, *b = a + half;
    const float *c = cos + (long)t * E, *s = sin + (long)t * E;
    if (E == W) {
      vf y = load(a);
      store(a, scale * (y * load(c) + sign * swapped<W / 2>(y) * load(s)));
      continue;
    }
    int e = 0;
    for (; e + W <= half; e += W) {
      vf u = load(a + e), v = load(b + e), ce = load(c + e), se = sign * load(s + half + e);
      store(a + e, scale * (u * ce - v * se));
      store(b + e, scale * (v * ce + u * se));
    }
    for (; e < half; e++) {
      float u = a[e], v = b[e], se = sign * s[half + e];
      a[e] = scale * (u * c[e] - v * se);
      b[e] = scale * (v * c[e] + u * se);
    }
  }
}

void transpose(const float* x, float* y, int T, int E, int P, int ld) {
  for (int e = 0; e < E; e++)
    for (int t = 0; t < T; t++) y[(long)e * ld + t] = x[(long)t * P + e];
}

struct Scratch {
  float* at;
  explicit Scratch(size_t floats) : at((float*)std::aligned_alloc(64, (floats * 4 + 63) / 64 * 64)) {
    std::fill(at, at + floats, 0.0f);
  }
  ~Scratch() { std::free(at); }
};

// qkv (B, T, A, E), out (B, T, H, E); rows (B, H, T, 2) keeps the largest score of each row and one over the sum of
// exponentials.
template <typename T_>
void forward(const T_* qkv, const float* cos, const float* sin, T_* out, float* rows, float scale, int B, int T,
             int H, int KV, int E) {
  int P = up(E), L = up(T), A = H + 2 * KV, group = H / KV;
  long row = (long)A * E;
  Scratch scratch((size_t)T * P * 3 + (size_t)P * L + (size_t)ROWS * L);
  float *q = scratch.at, *k = q + (size_t)T * P, *v = k + (size_t)T * P, *kt = v + (size_t)T * P;
  float* s = kt + (size_t)P * L;
  for (int b = 0; b < B; b++)
    for (int h = 0; h < H; h++) {
      const T_* x = qkv + (long)b * T * row;
      take(x + (long)h * E, row, q, T, E, P);
      turn(q, cos, sin, 1, scale, T, E, P);
      if (h % group == 0) {
        take(x + (long)(H + h / group) * E, row, k, T, E, P);
        turn(k, cos, sin, 1, 1, T, E, P);
        take(x + (long)(H + KV + h / group) * E, row, v, T, E, P);
        transpose(k, kt, T, E, P, L);
      }
      for (int from = 0; from < T; from += ROWS) {
        int M = std::min(ROWS, T - from), N = from + M;
        product<false>(q + (long)from * P, P, 1, kt, L, s, L, M, up(N), E);
        float inverse[ROWS];
        for (int m = 0; m < M; m++) {
          int seen = from + m + 1, whole = up(seen);
          float* row_s = s + (long)m * L;
          for (int j = seen; j < whole; j++) row_s[j] = -1e30f;
          vf most = splat(-1e30f);
          for (int j = 0; j < whole; j += W) most = larger(most, load(row_s + j));
          float top = largest(most);
          vf total{};
          for (int j = 0; j < whole; j += W) {
            vf y = vexp(load(row_s + j) - top);
            store(row_s + j, y);
            total += y;
          }
          for (int j = whole; j < N; j++) row_s[j] = 0;
          float l = sum(total);
          inverse[m] = 1 / l;
          rows[2 * (((long)b * H + h) * T + from + m)] = top;
          rows[2 * (((long)b * H + h) * T + from + m) + 1] = 1 / l;
        }
        // The output takes the place of the queries.
        product<false>(s, L, 1, v, P, q + (long)from * P, P, M, P, N);
        for (int m = 0; m < M; m++)
          for (int e = 0; e < P; e++) q[(long)(from + m) * P + e] *= inverse[m];
      }
      give(q, out + ((long)b * T * H + h) * E, (long)H * E, T, E, P);
    }
}

template <typename T_>
void backward(const T_* qkv, const float* cos, const float* sin, const T_* out, const float* rows, const T_* grad_out,
              T_* grad_qkv, float scale, int B, int T, int H, int KV, int E) {
  int P = up(E), L = up(T), A = H + 2 * KV, group = H / KV;
  long row = (long)A * E, n = (long)T * P;
  Scratch scratch((size_t)n * 8 + (size_t)P * L * 2 + (size_t)ROWS * L * 2 + T);
  float *q = scratch.at, *k = q + n, *v = k + n, *o = v + n, *go = o + n, *gq = go + n, *gk = gq + n, *gv = gk + n;
  float *kt = gv + n, *vt = kt + (size_t)P * L, *p = vt + (size_t)P * L, *d = p + (size_t)ROWS * L;
  float* dot = d + (size_t)ROWS * L;
  for (int b = 0; b < B; b++)
    for (int h = 0; h < H; h++) {
      const T_* x = qkv + (long)b * T * row;
      T_* gx = grad_qkv + (long)b * T * row;
      take(x + (long)h * E, row, q, T, E, P);
      turn(q, cos, sin, 1, scale, T, E, P);
      if (h % group == 0) {
        take(x + (long)(H + h / group) * E, row, k, T, E, P);
        turn(k, cos, sin, 1, 1, T, E, P);
        take(x + (long)(H + KV + h / group) * E, row, v, T, E, P);
        transpose(k, kt, T, E, P, L);
        transpose(v, vt, T, E, P, L);
        std::fill(gk, gk + n, 0.0f);
        std::fill(gv, gv + n, 0.0f);
      }
      take(out + ((long)b * T * H + h) * E, (long)H * E, o, T, E, P);
      take(grad_out + ((long)b * T * H + h) * E, (long)H * E, go, T, E, P);
      for (int t = 0; t < T; t++) {
        vf total{};
        for (int e = 0; e < P; e += W) total += load(o + (long)t * P + e) * load(go + (long)t * P + e);
        dot[t] = sum(total);
      }
      for (int from = 0; from < T; from += ROWS) {
        int M = std::min(ROWS, T - from), N = from + M;
        product<false>(q + (long)from * P, P, 1, kt, L, p, L, M, up(N), E);
        product<false>(go + (long)from * P, P, 1, vt, L, d, L, M, up(N), E);
        for (int m = 0; m < M; m++) {
          int seen = from + m + 1, whole = up(seen);
          float *row_p = p + (long)m * L, *row_d = d + (long)m * L;
          const float* saved = rows + 2 * (((long)b * H + h) * T + from + m);
          float top = saved[0], inverse = saved[1], along = dot[from + m];
          for (int j = seen; j < whole; j++) row_p[j] = -1e30f;
          for (int j = 0; j < whole; j += W) {
            vf y = vexp(load(row_p + j) - top) * inverse;
            store(row_p + j, y);
            store(row_d + j, y * (load(row_d + j) - along));
          }
          for (int j = whole; j < N; j++) row_p[j] = row_d[j] = 0;
        }
        product<false>(d, L, 1, k, P, gq + (long)from * P, P, M, P, N);
        product<true>(d, 1, L, q + (long)from * P, P, gk, P, N, P, M);
        product<true>(p, 1, L, go + (long)from * P, P, gv, P, N, P, M);
      }
      turn(gq, cos, sin, -1, scale, T, E, P);
      give(gq, gx + (long)h * E, row, T, E, P);
      if (h % group == group - 1) {
        turn(gk, cos, sin, -1, 1, T, E, P);
        give(gk, gx + (long)(H + h / group) * E, row, T, E, P);
        give(gv, gx + (long)(H + KV + h / group) * E, row, T, E, P);
      }
    }
}

}  // namespace

#define FOR_TYPE(T_, name)                                                                                            \
  void attention_forward_##name(const T_* qkv, const float* cos, const float* sin, T_* out, float* rows, float scale,  \
                                int B, int T, int H, int KV, int E) {                                                 \
    forward(qkv, cos, sin, out, rows, scale, B, T, H, KV, E);                                                          \
  }                                                                                                                   \
  void attention_backward_##name(const T_* qkv, const float* cos, const float* sin, const T_* out, const float* rows,  \
                                 const T_* grad_out, T_* grad_qkv, float scale, int B, int T, int H, int KV, int E) { \
    backward(qkv, cos, sin, out, rows, grad_out, grad_qkv, scale, B, T, H, KV, E);                                     \
  }

extern "C" {
FOR_TYPE(float, fp32)
FOR_TYPE(bf16, bf16)
}
