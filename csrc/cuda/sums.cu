// The second stage of the gradients of tau and v_threshold: the threads' partial sums, added up channel by channel.
#define STDANO_ISA cuda
#include "device.h"
#include "launch.h"

namespace stdano::cuda {
namespace {

constexpr int kThreads = 512;

// Block (channel, which): thread i adds entries i, i + kThreads, ...; then pairs are added. The order never depends
// on the device.
template <class real>
__global__ void __launch_bounds__(kThreads)
    sums_kernel(const double* __restrict__ partial, Slices slices, int64_t channel_stride, real* grad_tau,
                real* grad_threshold, bool one_tau, bool one_threshold) {
  const int which = blockIdx.y;
  real* out = which == 0 ? grad_tau : grad_threshold;
  const bool one = which == 0 ? one_tau : one_threshold;
  if (!out || (one && blockIdx.x > 0)) return;
  const int64_t width = one ? slices.columns : channel_stride;  // columns of this channel, from `start` on
  const int64_t start = one ? 0 : blockIdx.x * channel_stride;
  partial += which * slices.slabs * slices.columns + start;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < slices.slabs * width; i += kThreads) {
    sum += partial[i / width * slices.columns + i % width];
  }
  __shared__ double sums[kThreads];
  sums[threadIdx.x] = sum;
  __syncthreads();
#pragma unroll
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = static_cast<real>(sums[0]);
}

template <class real>
void run(const SumsCall& call, cudaStream_t stream) {
  const bool one = (!call.grad_tau || call.one_tau) && (!call.grad_threshold || call.one_threshold);
  const dim3 grid(one ? 1 : static_cast<unsigned>(call.g.channels), 2);
  sums_kernel<real><<<grid, kThreads, 0, stream>>>(call.partial, make_slices(call.g), call.g.channel_stride,
                                                   static_cast<real*>(call.grad_tau),
                                                   static_cast<real*>(call.grad_threshold), call.one_tau,
                                                   call.one_threshold);
}

}  // namespace

#define STDANO_TEXT(...) STDANO_TEXT_(__VA_ARGS__)
#define STDANO_TEXT_(...) #__VA_ARGS__
const char* architectures() { return STDANO_TEXT(__CUDA_ARCH_LIST__); }

int64_t partial_size(const Geometry& g) {
  if (g.N == 0) return 0;
  const Slices slices = make_slices(g);
  return 2 * slices.slabs * slices.columns;
}

void launch_sums(const SumsCall& call, cudaStream_t stream) {
  call.dtype == Dtype::float64 ? run<double>(call, stream) : run<float>(call, stream);
}

}  // namespace stdano::cuda
