// The second stage of all sums for channels: the threads' partial sums, added up channel by channel, and what becomes of
// them (norm.h). Part of launch.cu.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>

#include "../norm.h"
#include "device.h"
#include "layout.h"

namespace stdano::cuda {
namespace {

constexpr int kSumsThreads = 512, kMostSums = 16;
static_assert(kMostSums >= 1 + kMostMembers, "the sums of a super neuron; a neuron has fewer");

// Of each sum there are `size` partial ones, [slabs][columns], of which a channel has the columns [c*width,
// (c + 1)*width). A sum over all channels has one for each warp.
struct SumsArguments {
  const double* partial;
  unsigned* ticket;
  int64_t size, slabs, columns, width, warps;
  Divisor by_width;
  int count;
  Sum sums[kMostSums];
};

// The sum over a block's threads, for the first one: those of a warp are added, and then of all warps.
__device__ double block_sum(double own) {
  constexpr int warps = kSumsThreads / kWarp;
  __shared__ double of_warps[warps];
  own = warp_sum(own);
  __syncthreads();  // the first warp has read those of an earlier sum
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = own;
  __syncthreads();
  return warp_sum(threadIdx.x < warps ? of_warps[threadIdx.x] : 0);
}

// Sum k of a channel, for the first thread; all threads of a block call this, and may do so for one sum after the
// other. Thread i adds entries i, i + kSumsThreads, ...; the order never depends on the device.
__device__ double sum_of(const SumsArguments& a, int k, int64_t channel) {
  const bool one = a.sums[k].one;
  const int64_t entries = one ? a.warps : a.slabs * a.width;
  const double* partial = a.partial + k * a.size + (one ? 0 : channel * a.width);
  double own = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < entries; i += kSumsThreads) {
    own += partial[one ? i : divide(i, a.by_width) * (a.columns - a.width) + i];
  }
  return block_sum(own);
}

// Nothing becomes of the sums.
struct NoFinish {
  static constexpr int most_sums = 1;
  __device__ int sums() const { return 0; }
  __device__ void operator()(int64_t, const double*) const {}
};

// Behind all channels, by whole blocks.
template <class Finish>
__device__ void conclude(const SumsArguments&, const Finish&) {}

// The block that comes here last sees what all have stored, and adds it up in the order of the channels.
template <class real>
__device__ void conclude(const SumsArguments& a, const MixtureBackward<real>& finish) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(a.ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last) return;
  const int64_t channels = finish.call.channels;
  for (int k = 0; k < finish.call.members; ++k) {
    double own = 0;
    for (int64_t c = threadIdx.x; c < channels; c += kSumsThreads) own += finish.call.of_weights[k * channels + c];
    const double sum = block_sum(own);
    if (threadIdx.x == 0) static_cast<real*>(finish.call.grad_weights)[k] = static_cast<real>(sum);
  }
}

// Block (channel, sum); behind the sums that are wanted as such come those of `finish`, all by one block a channel.
template <class Finish>
__global__ void __launch_bounds__(kSumsThreads)
    sums_kernel(const __grid_constant__ SumsArguments a, const __grid_constant__ Finish finish) {
  if (blockIdx.y == a.count) {
    double own[Finish::most_sums];
    for (int k = 0; k < finish.sums(); ++k) own[k] = sum_of(a, a.count + k, blockIdx.x);
    if (threadIdx.x == 0) finish(blockIdx.x, own);
    return conclude(a, finish);
  }
  const Sum& sum = a.sums[blockIdx.y];
  if (sum.one && blockIdx.x > 0) return;
  const double value = sum_of(a, blockIdx.y, blockIdx.x);
  if (threadIdx.x > 0) return;
  if (sum.is_double) {
    static_cast<double*>(sum.out)[blockIdx.x] = value;
  } else {
    static_cast<float*>(sum.out)[blockIdx.x] = static_cast<float>(value);
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
  const cudaError_t error = cudaFuncGetAttributes(&attributes, sums_kernel<NoFinish>);
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

int64_t partial_size(const Geometry& g) { return make_slices(g).partials(); }

namespace {

// Without partial sums `finish` is left to itself.
template <class Finish>
void launch(const Geometry& g, const double* partial, unsigned* ticket, const std::vector<Sum>& sums,
            const Finish& finish, cudaStream_t stream) {
  const Slices slices = make_slices(g);
  const int64_t columns = slices.partials() / slices.slabs, width = columns / g.channels;
  SumsArguments a{partial, ticket, slices.partials(), partial ? slices.slabs : 0, columns, width, slices.warps(),
                  make_divisor(width), static_cast<int>(sums.size())};
  std::copy(sums.begin(), sums.end(), a.sums);
  const unsigned rows = static_cast<unsigned>(sums.size()) + !std::is_same<Finish, NoFinish>::value;
  sums_kernel<<<dim3(g.channels, rows), kSumsThreads, 0, stream>>>(a, finish);
}

}  // namespace

void launch_sums(const Geometry& g, const double* partial, const std::vector<Sum>& sums, cudaStream_t stream) {
  launch(g, partial, nullptr, sums, NoFinish(), stream);
}

#define STDANO_FINISH(Finish)                                                                                         \
  void launch_sums(const Geometry& g, Dtype dtype, const double* partial, unsigned* ticket,                           \
                   const std::vector<Sum>& sums, const Finish##Call& call, cudaStream_t stream) {                     \
    dtype == Dtype::float64 ? launch(g, partial, ticket, sums, Finish<double>{call}, stream)                          \
                            : launch(g, partial, ticket, sums, Finish<float>{call}, stream);                          \
  }
STDANO_FINISH(NormForward)
STDANO_FINISH(NormBackward)
STDANO_FINISH(MixtureForward)
STDANO_FINISH(MixtureBackward)
#undef STDANO_FINISH

}  // namespace stdano::cuda
