// The interface between the operators (ops.cpp, which knows torch) and the CUDA kernels: one file a neuron (lif.cu,
// llif.cu, slif.cu), one for the super neuron, one for what is done to channels, compiled side by side.
#pragma once

#include <cuda_runtime_api.h>

#include "../call.h"

namespace stdano {
namespace cuda {

void launch_lif(const ForwardCall&, cudaStream_t);
void launch_llif(const ForwardCall&, cudaStream_t);
void launch_slif(const ForwardCall&, cudaStream_t);
void launch_lif(const BackwardCall&, cudaStream_t);
void launch_llif(const BackwardCall&, cudaStream_t);
void launch_slif(const BackwardCall&, cudaStream_t);

// These take at least one neuron and one time step.
void launch(const EncodeCall&, cudaStream_t);
void launch(const DecodeCall&, cudaStream_t);
void launch(const SuperSumsCall&, cudaStream_t);
void launch(const SuperBackwardCall&, cudaStream_t);
void launch(const ChannelSumsCall&, cudaStream_t);
void launch(const ChannelAffineCall&, cudaStream_t);

// Numbers of double that the threads' partial sums of one quantity take.
int64_t partial_size(const Geometry&);

// Where the sums of one quantity go: `channels` numbers of double or float, or one, over all channels.
struct Sum {
  int which;  // of the partial sums
  void* out;
  bool is_double, one;
};
constexpr int kMostSums = 4;

// From partial sums, arrays of partial_size(), to the sums.
struct SumsCall {
  Geometry g;
  const double* partial;
  int count;
  Sum sums[kMostSums];
};
void launch_sums(const SumsCall&, cudaStream_t);

// The architectures that the kernels were compiled for, as nvcc writes them: "800,860".
const char* architectures();

// Why the driver takes none of the kernels for the current device; "" where it does.
const char* code_error();

}  // namespace cuda
}  // namespace stdano
