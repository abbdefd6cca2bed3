// Small kernels for the simulator's own tests.
#include <cassert>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define ID (blockIdx.x * blockDim.x + threadIdx.x)
#define FULL 0xffffffffu

extern "C" {
__global__ void f64_ops(const double* a, const double* b, const double* c, double* o, int n) {
  int i = ID;
  if (i >= n) return;
  o[i] = fma(a[i], b[i], c[i]);
  o[n + i] = a[i] / b[i];
  o[2 * n + i] = sqrt(fabs(a[i]));
  o[3 * n + i] = 1.0 / b[i];
  o[4 * n + i] = fmin(a[i], c[i]);
  o[5 * n + i] = fmax(a[i], c[i]);
  o[6 * n + i] = __dadd_rn(__dmul_rn(a[i], b[i]), c[i]);
  o[7 * n + i] = exp(a[i]);
  o[8 * n + i] = (double)(float)a[i] + (double)(int)b[i];
}
__global__ void f32_ops(const float* a, const float* b, const float* c, float* o, int n) {
  int i = ID;
  if (i >= n) return;
  o[i] = __fmaf_rn(a[i], b[i], c[i]);
  o[n + i] = __fdiv_rn(a[i], b[i]);
  o[2 * n + i] = __fsqrt_rn(fabsf(a[i]));
  o[3 * n + i] = __frcp_rn(b[i]);
  o[4 * n + i] = fminf(a[i], c[i]);
  o[5 * n + i] = fmaxf(a[i], c[i]);
  o[6 * n + i] = __fadd_rd(a[i], b[i]);
  o[7 * n + i] = __fmul_ru(a[i], b[i]);
  o[8 * n + i] = expf(a[i]);
  o[9 * n + i] = tanhf(a[i]);
  o[10 * n + i] = atanf(a[i]);
  o[11 * n + i] = sinf(a[i] * 3);
  o[12 * n + i] = logf(fabsf(a[i]) + 1);
  o[13 * n + i] = erff(a[i]);
  o[14 * n + i] = rsqrtf(fabsf(b[i]));
  o[15 * n + i] = floorf(a[i]) + rintf(b[i]);
}
__global__ void half_ops(const __half* a, const __half* b, __half* o, int n) {
  int i = ID * 2;
  if (i >= n) return;
  __half2 x = *(const __half2*)(a + i), y = *(const __half2*)(b + i);
  *(__half2*)(o + i) = __hadd2(x, y);
  *(__half2*)(o + n + i) = __hmul2(x, y);
  *(__half2*)(o + 2 * n + i) = __hfma2(x, y, x);
  *(__half2*)(o + 3 * n + i) = __hmax2(x, y);
  for (int k = i; k < i + 2; ++k) {
    o[4 * n + k] = __hgt(a[k], b[k]) ? __hsub(a[k], b[k]) : __hneg(a[k]);
  }
}
typedef __nv_bfloat16 bf16;
__global__ void bfloat_ops(const bf16* a, const bf16* b, bf16* o, int n) {
  int i = ID;
  if (i >= n) return;
  o[i] = __hadd(a[i], b[i]);
  o[n + i] = __hfma(a[i], b[i], a[i]);
  o[2 * n + i] = __float2bfloat16_rz(__bfloat162float(a[i]) * 1.01f);
}
__global__ void int_ops(const int* a, const int* b, long long* o, int n) {
  int i = ID;
  if (i >= n) return;
  unsigned ua = a[i], ub = b[i];
  long long la = (long long)a[i] * 1234567891011LL, lb = b[i];
  o[i] = a[i] / b[i];
  o[n + i] = a[i] % b[i];
  o[2 * n + i] = ua / ub;
  o[3 * n + i] = la / lb;
  o[4 * n + i] = __mulhi(a[i], b[i]);
  o[5 * n + i] = __umul64hi((unsigned long long)la, 0x123456789abcdefULL * ub);
  o[6 * n + i] = __popc(ua) + 100 * __clz(ub) + 10000 * __ffs(ua);
  o[7 * n + i] = __brev(ua);
  o[8 * n + i] = __funnelshift_l(ua, ub, 7) ^ __byte_perm(ua, ub, 0x3715);
  o[9 * n + i] = (a[i] >> 5) ^ (int)(ua >> 3) ^ (a[i] << 4);
  o[10 * n + i] = min(a[i], b[i]) + (long long)max(ua, ub);
  o[11 * n + i] = la / 10 + (la >> 40) + (((unsigned long long)la << 33) >> 20);
  o[12 * n + i] = (int8_t)a[i] + (int16_t)b[i] + (uint8_t)a[i];
  o[13 * n + i] = abs(a[i]) & ~(b[i] | 12345);
}
// an array indexed at run time lives in local memory
__global__ void local_array(const float* x, float* o, int n, int steps) {
  float h[32];
  int i = ID;
  if (i >= n) return;
  float v = 0;
  for (int t = 0; t < steps; ++t) {
    v = v * 0.5f + x[t * n + i];
    h[t] = v;
  }
  float g = 0;
  for (int t = steps - 1; t >= 0; --t) {
    g = g * 0.5f + h[t];
    o[t * n + i] = g;
  }
}
__global__ void predicated(const float* x, float* o, const uint8_t* keep, int n) {
  int i = ID;
  float v = 0;
  if (i < n && keep[i]) v = x[i];
  if (i < n) o[i] = v;
}
__global__ void atomics(const float* x, const int* channel, float* sums, int* count, int* order,
                        int* top, double* dsum, unsigned long long* cas, int n) {
  int i = ID;
  if (i >= n) return;
  atomicAdd(sums + channel[i], x[i]);
  order[i] = atomicAdd(count + channel[i], 1);
  atomicMax(top + channel[i], (int)(x[i] * 1000));
  atomicAdd(dsum, (double)x[i]);
  if (i >= 200) return;
  unsigned long long seen = *cas, want;
  do {
    want = seen;
    seen = atomicCAS(cas, want, want + channel[i]);
  } while (seen != want);
}
__global__ void warp_ops(const int* x, int* o, int n) {
  int i = ID, v = x[i], lane = threadIdx.x & 31;
  int s = v;
  for (int k = 16; k; k >>= 1) s += __shfl_xor_sync(FULL, s, k);
  o[i] = s;
  int d = v;
  for (int k = 16; k; k >>= 1) d += __shfl_down_sync(FULL, d, k);
  o[n + i] = d;
  o[2 * n + i] = __shfl_sync(FULL, v, (lane * 7) & 31) + __shfl_sync(FULL, v, 3, 8);
  int u = v;
  for (int k = 1; k < 32; k <<= 1) {
    int other = __shfl_up_sync(FULL, u, k);
    if (lane >= k) u += other;
  }
  o[3 * n + i] = u;
  o[4 * n + i] = __ballot_sync(FULL, v & 1);
  o[5 * n + i] = __any_sync(FULL, v > 90) * 2 + __all_sync(FULL, v > 5);
  o[6 * n + i] = __reduce_add_sync(FULL, v);
  if (v & 1) o[7 * n + i] = __activemask();
  else o[7 * n + i] = __popc(__activemask());
}
// per-channel sum: warp shuffles, then shared memory; one block per channel
__global__ void channel_sum(const float* x, float* o, int n, int channels) {
  __shared__ float part[32];
  int c = blockIdx.x;
  float s = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) s += x[(int64_t)i * channels + c];
  for (int k = 16; k; k >>= 1) s += __shfl_down_sync(FULL, s, k);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x / 32] = s;
  __syncthreads();
  if (threadIdx.x < 32) {
    s = threadIdx.x < (blockDim.x + 31) / 32 ? part[threadIdx.x] : 0.f;
    for (int k = 16; k; k >>= 1) s += __shfl_xor_sync(FULL, s, k);
    if (threadIdx.x == 0) o[c] = s;
  }
}
extern __shared__ float dynamic[];
__global__ void tree_sum(const float* x, float* o, int n) {
  dynamic[threadIdx.x] = ID < n ? x[ID] : 0.f;
  __syncthreads();
  for (int k = blockDim.x / 2; k; k >>= 1) {
    if (threadIdx.x < k) dynamic[threadIdx.x] += dynamic[threadIdx.x + k];
    __syncthreads();
  }
  int any = __syncthreads_or(x[ID < n ? ID : 0] > 2.5f);
  if (threadIdx.x == 0) o[blockIdx.x] = any ? -dynamic[0] : dynamic[0];
}
__global__ void tree_sum_race(const float* x, float* o, int n) {
  dynamic[threadIdx.x] = x[ID];
  __syncthreads();
  for (int k = blockDim.x / 2; k; k >>= 1) {
    if (threadIdx.x < k) dynamic[threadIdx.x] += dynamic[threadIdx.x + k];
  }
  if (threadIdx.x == 0) o[blockIdx.x] = dynamic[0];
}
__global__ void shared_atomics(const int* x, int* o, int n) {
  __shared__ int bins[16];
  if (threadIdx.x < 16) bins[threadIdx.x] = 0;
  __syncthreads();
  if (ID < n) atomicAdd(bins + (x[ID] & 15), 1);
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(o + threadIdx.x, bins[threadIdx.x]);
}
__global__ void barrier_in_branch(float* o) {
  if (threadIdx.x < 40) {
    o[threadIdx.x] = 1;
    __syncthreads();
    o[threadIdx.x] = 2;
  } else {
    o[threadIdx.x] = 3;
    __syncthreads();
    o[threadIdx.x] = 5;
  }
}
__global__ void shuffle_partial(const float* x, float* o, int n) {
  int i = ID;
  if (i >= n) return;
  o[i] = __shfl_xor_sync(FULL, x[i], 1);
}
// two bits per code
__global__ void pack_codes(const uint8_t* code, uint8_t* packed, int8_t* back, int n) {
  int i = ID;
  if (i * 4 >= n) return;
  uint8_t b = 0;
  for (int k = 0; k < 4; ++k) b |= (code[i * 4 + k] & 3) << (2 * k);
  packed[i] = b;
  for (int k = 0; k < 4; ++k) back[i * 4 + k] = (int8_t)((packed[i] >> (2 * k)) & 3) - 2;
}
__global__ void signed_bytes(const int8_t* x, float* o, int n) {
  int i = ID;
  if (i < n) o[i] = x[i] * 0.5f;
}
__global__ void far_index(const float* x, float* o, int64_t first, int n) {
  int i = ID;
  if (i < n) o[first + i] = x[first + i] + 1;
}
struct View { const float* p; int64_t stride[2]; int rows; };
__global__ void by_value(View v, float* o) {
  o[threadIdx.x] = v.p[threadIdx.x * v.stride[0] + v.stride[1]] + v.rows;
}
__constant__ float table[4] = {0.5f, 1.5f, -2.0f, 8.0f};
__device__ int launches = 7;
__global__ void variables(float* o) {
  o[threadIdx.x] = table[threadIdx.x & 3];
  if (threadIdx.x == 0) launches += 1;
  if (threadIdx.x == 33) o[64] = launches;
}
__global__ void jump_table(const int* x, int* o) {
  int v = x[threadIdx.x], r = threadIdx.x;
  switch (v) {
    case 0: r = r * 3 + 1; break;
    case 1: r = __popc(r); break;
    case 2: r = r * r; break;
    case 3: r ^= 77; break;
    case 4: r = r / 3; break;
    case 5: r = 5 - r; break;
    case 6: r = __brev(r); break;
    case 7: r = __clz(r); break;
    default: r = -1;
  }
  o[threadIdx.x] = r;
}
__global__ void asserting(const int* x) { assert(x[threadIdx.x] < 10); }
__global__ void unguarded(const float* x, float* o) { o[ID] = x[ID]; }
__global__ void vectorised(const float4* x, float4* o, int n) {
  if (ID < n) o[ID] = x[ID];
}
__global__ void same_target(float* o) { o[threadIdx.x] = blockIdx.x; }
__global__ void lif(const float* __restrict__ x, float* __restrict__ s, int n, int steps,
                    float decay, float th) {
  int i = ID;
  if (i >= n) return;
  float v = 0;
  for (int t = 0; t < steps; ++t) {
    v = __fadd_rn(__fmul_rn(v, decay), x[(int64_t)t * n + i]);
    bool f = v >= th;
    s[(int64_t)t * n + i] = f ? 1.f : 0.f;
    v = f ? 0.f : v;
  }
}
}
