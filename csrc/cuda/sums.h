// The second stage of all sums for channels: the threads' partial sums, added up channel by channel.
#pragma once

#include <cuda_runtime_api.h>

#include "device.h"
#include "layout.h"

namespace stdano::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kMostSums = 16, kMostParts = 64;

// Of [.][slabs][columns] a channel has the columns [c*width, (c + 1)*width); `which` says at what index its sums are.
struct SumsArguments {
  const double* partial;
  int64_t slabs, columns, width;
  Divisor width_divisor;
  int which[kMostSums];
  double* out;  // [sums][parts][channels] of what is still to be added up; or null
  Sum sums[kMostSums];
};

// Block (channel, sum, part), of which each part has its share: thread i adds entries i, i + kThreads, ...; then pairs are added. The order never depends
// on the device.
__global__ void __launch_bounds__(kThreads) sums_kernel(const __grid_constant__ SumsArguments a) {
  const int64_t entries = a.slabs * a.width, share = (entries + gridDim.z - 1) / gridDim.z;
  const int64_t begin = blockIdx.z * share, end = begin + share < entries ? begin + share : entries;
  const double* partial = a.partial + a.which[blockIdx.y] * a.slabs * a.columns + blockIdx.x * a.width;
  double own = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t slab = divide(i, a.width_divisor);
    own += partial[slab * (a.columns - a.width) + i];
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
  if (a.out) {
    a.out[(static_cast<int64_t>(blockIdx.y) * gridDim.z + blockIdx.z) * gridDim.x + blockIdx.x] = sums[0];
    return;
  }
  const Sum& sum = a.sums[blockIdx.y];
  if (sum.is_double) {
    static_cast<double*>(sum.out)[blockIdx.x] = sums[0];
  } else {
    static_cast<float*>(sum.out)[blockIdx.x] = static_cast<float>(sums[0]);
  }
}

// Blocks that share the entries of one channel's sum.
unsigned count_parts(int64_t entries) {
  const int64_t wanted = (entries + 8 * kThreads - 1) / (8 * kThreads);
  return static_cast<unsigned>(wanted < kMostParts ? wanted : kMostParts);
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

int64_t partial_size(const Geometry& g, int64_t count) {
  const Slices s = make_slices(g);
  const int64_t parts = g.channels * count_parts(s.slabs * s.columns / g.channels);
  return count * (s.threads() + (parts > kMostParts ? parts : kMostParts));
}

namespace {

// The sums that `a` names, kMostSums at most.
void launch(SumsArguments a, int count, unsigned blocks, double* scratch, cudaStream_t stream) {
  const unsigned parts = count_parts(a.slabs * a.width);
  a.width_divisor = make_divisor(a.width);
  a.out = parts > 1 ? scratch : nullptr;
  sums_kernel<<<dim3(blocks, count, parts), kThreads, 0, stream>>>(a);
  if (parts == 1) return;
  a.partial = scratch;
  a.slabs = parts;
  a.columns = blocks;
  a.width = 1;
  for (int k = 0; k < count; ++k) a.which[k] = k;
  launch(a, count, blocks, nullptr, stream);
}

}  // namespace

void launch_sums(const Geometry& g, double* partial, const std::vector<Sum>& sums, cudaStream_t stream) {
  const Slices slices = make_slices(g);
  for (const bool one : {false, true}) {
    SumsArguments a{};
    int count = 0;
    for (size_t k = 0; k < sums.size(); ++k) {
      if ((sums[k].one || g.channels == 1) == one) {
        a.which[count] = static_cast<int>(k);
        a.sums[count++] = sums[k];
      }
      if (count == 0 || (count < kMostSums && k + 1 < sums.size())) continue;
      a.partial = partial;
      a.slabs = slices.slabs;
      a.columns = slices.columns;
      a.width = one ? slices.columns : g.channel_stride;
      launch(a, count, one ? 1 : static_cast<unsigned>(g.channels),
             partial + static_cast<int64_t>(sums.size()) * slices.threads(), stream);
      count = 0;
    }
  }
}

}  // namespace stdano::cuda
