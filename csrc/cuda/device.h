// The interface between the operators (ops.cpp, which knows torch) and the CUDA kernels: one file a neuron
// (lif.cu, llif.cu, slif.cu), compiled side by side.
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

// Numbers of double that the partial sums of a call's constants take.
int64_t partial_size(const Geometry&);

// From those of a backward call to the gradients of tau and v_threshold, either of which may be null: `out` has
// `channels` elements, or one for the sum over all channels.
struct SumsCall {
  Geometry g;
  Dtype dtype;
  const double* partial;
  void *grad_tau, *grad_threshold;
  bool one_tau, one_threshold;
};
void launch_sums(const SumsCall&, cudaStream_t);

// The architectures that the kernels were compiled for, as nvcc writes them: "800,860".
const char* architectures();

}  // namespace cuda
}  // namespace stdano
