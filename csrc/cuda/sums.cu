// The second stage of all sums for channels: the threads' partial sums, added up channel by channel.
#define STDANO_ISA cuda
#include "device.h"
#include "grid.h"

namespace stdano::cuda {
namespace {

constexpr int kThreads = 512;

struct Sums {
  Sum items[kMostSums];
};

// Block (channel, sum): thread i adds entries i, i + kThreads, ...; then pairs are added. The order never depends on
// the device.
__global__ void __launch_bounds__(kThreads)
    sums_kernel(const double* __restrict__ partial, Slices slices, int64_t channel_stride, Sums all) {
  Sum sum = all.items[0];
#pragma unroll
  for (int k = 1; k < kMostSums; ++k) {
    if (blockIdx.y == k) sum = all.items[k];  // an index known at run time alone would copy them to local memory
  }
  if (sum.one && blockIdx.x > 0) return;
  const int64_t width = sum.one ? slices.columns : channel_stride;  // columns of this channel, from `start` on
  const int64_t start = sum.one ? 0 : blockIdx.x * channel_stride;
  partial += sum.which * slices.slabs * slices.columns + start;
  double own = 0;
  for (int64_t i = threadIdx.x; i < slices.slabs * width; i += kThreads) {
    own += partial[i / width * slices.columns + i % width];
  }
  __shared__ double sums[kThreads];
  sums[threadIdx.x] = own;
  __syncthreads();
#pragma unroll
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x > 0) return;
  if (sum.is_double) {
    static_cast<double*>(sum.out)[blockIdx.x] = sums[0];
  } else {
    static_cast<float*>(sum.out)[blockIdx.x] = static_cast<float>(sums[0]);
  }
}

}  // namespace

#define STDANO_TEXT(...) STDANO_TEXT_(__VA_ARGS__)
#define STDANO_TEXT_(...) #__VA_ARGS__
const char* architectures() { return STDANO_TEXT(__CUDA_ARCH_LIST__); }

int64_t partial_size(const Geometry& g) {
  if (g.N == 0) return 0;
  const Slices slices = make_slices(g);
  return slices.slabs * slices.columns;
}

void launch_sums(const SumsCall& call, cudaStream_t stream) {
  Sums all{};
  bool one = true;
  for (int k = 0; k < call.count; ++k) {
    all.items[k] = call.sums[k];
    all.items[k].one = call.sums[k].one || call.g.channels == 1;  // whose columns are not its channel_stride
    one = one && all.items[k].one;
  }
  const dim3 grid(one ? 1 : static_cast<unsigned>(call.g.channels), call.count);
  sums_kernel<<<grid, kThreads, 0, stream>>>(call.partial, make_slices(call.g), call.g.channel_stride, all);
}

}  // namespace stdano::cuda
