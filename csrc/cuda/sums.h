// The second stage of all sums for channels: the threads' partial sums, added up channel by channel. Part of launch.cu.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>

#include "device.h"
#include "layout.h"

namespace stdano::cuda {
namespace {

constexpr int kSumsThreads = 1024, kMostSums = 16;
static_assert(kMostSums >= 1 + kMostMembers, "the sums of a super neuron; a neuron has fewer");

// Of [sums][slabs][columns] a channel has the columns [c*width, (c + 1)*width); a sum over all channels has all.
struct SumsArguments {
  const double* partial;
  int64_t slabs, columns, width;
  Divisor width_divisor;
  Sum sums[kMostSums];
};

// Block (channel, sum): thread i adds entries i, i + kSumsThreads, ...; then pairs are added. The order never depends
// on the device.
__global__ void __launch_bounds__(kSumsThreads) sums_kernel(const __grid_constant__ SumsArguments a) {
  const Sum& sum = a.sums[blockIdx.y];
  if (sum.one && blockIdx.x > 0) return;
  const int64_t entries = a.slabs * (sum.one ? a.columns : a.width);
  const double* partial = a.partial + blockIdx.y * a.slabs * a.columns + blockIdx.x * a.width;
  double own = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < entries; i += kSumsThreads) {
    own += partial[sum.one ? i : divide(i, a.width_divisor) * (a.columns - a.width) + i];
  }
  __shared__ double sums[kSumsThreads];
  sums[threadIdx.x] = own;
  __syncthreads();
#pragma unroll
  for (int half = kSumsThreads / 2; half > 0; half /= 2) {
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

int64_t partial_size(const Geometry& g) { return make_slices(g).threads(); }

void launch_sums(const Geometry& g, const double* partial, const std::vector<Sum>& sums, cudaStream_t stream) {
  const Slices slices = make_slices(g);
  const int64_t width = slices.columns / g.channels;
  SumsArguments a{partial, slices.slabs, slices.columns, width, make_divisor(width)};
  std::copy(sums.begin(), sums.end(), a.sums);
  sums_kernel<<<dim3(g.channels, sums.size()), kSumsThreads, 0, stream>>>(a);
}

}  // namespace stdano::cuda
