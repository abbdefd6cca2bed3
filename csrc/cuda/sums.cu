// The second stage of all sums for channels: the threads' partial sums, added up channel by channel.
#define STDANO_ISA cuda
#include "device.h"
#include "grid.h"

namespace stdano::cuda {
namespace {

constexpr int kThreads = 512;

struct Sums {
  int which[kMostSums];
  void* out[kMostSums];
  bool is_double[kMostSums], one[kMostSums];
};

// One of them by selection: an index that is known at run time alone would copy them all to local memory.
template <class T>
__device__ __forceinline__ T pick(const T (&values)[kMostSums], unsigned i) {
  const T low = i == 0 ? values[0] : values[1], high = i == 2 ? values[2] : values[3];
  return i < 2 ? low : high;
}

// Block (channel, sum): thread i adds entries i, i + kThreads, ...; then pairs are added. The order never depends on
// the device.
__global__ void __launch_bounds__(kThreads)
    sums_kernel(const double* __restrict__ partial, Slices slices, int64_t channel_stride, Sums all) {
  const bool one = pick(all.one, blockIdx.y);
  if (one && blockIdx.x > 0) return;
  const int64_t width = one ? slices.columns : channel_stride;  // columns of this channel, from `start` on
  const int64_t start = one ? 0 : blockIdx.x * channel_stride;
  partial += pick(all.which, blockIdx.y) * slices.slabs * slices.columns + start;
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
  void* out = pick(all.out, blockIdx.y);
  if (pick(all.is_double, blockIdx.y)) {
    static_cast<double*>(out)[blockIdx.x] = sums[0];
  } else {
    static_cast<float*>(out)[blockIdx.x] = static_cast<float>(sums[0]);
  }
}

}  // namespace

#define STDANO_TEXT(...) STDANO_TEXT_(__VA_ARGS__)
#define STDANO_TEXT_(...) #__VA_ARGS__
const char* architectures() { return STDANO_TEXT(__CUDA_ARCH_LIST__); }

// All files are compiled for the same architectures, so one kernel speaks for all. Other errors are not about code
// (an earlier kernel has failed, memory is short, a graph is being captured): the next launch reports them.
const char* code_error() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, sums_kernel);
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // or the next launch, whosever it is, would report this one
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidKernelImage:
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorJitCompilationDisabled: return cudaGetErrorString(error);
    default: return "";
  }
}

int64_t partial_size(const Geometry& g) {
  if (g.N == 0) return 0;
  const Slices slices = make_slices(g);
  return slices.slabs * slices.columns;
}

void launch_sums(const SumsCall& call, cudaStream_t stream) {
  Sums all{};
  bool one = true;
  for (int k = 0; k < call.count; ++k) {
    all.which[k] = call.sums[k].which;
    all.out[k] = call.sums[k].out;
    all.is_double[k] = call.sums[k].is_double;
    all.one[k] = call.sums[k].one || call.g.channels == 1;  // whose columns are not its channel_stride
    one = one && all.one[k];
  }
  const dim3 grid(one ? 1 : static_cast<unsigned>(call.g.channels), call.count);
  sums_kernel<<<grid, kThreads, 0, stream>>>(call.partial, make_slices(call.g), call.g.channel_stride, all);
}

}  // namespace stdano::cuda
