// The interface between the operators (ops.cpp, which knows torch) and the CUDA kernels.
#pragma once

#include "../call.h"

typedef struct CUstream_st* cudaStream_t;  // as CUDA has it

namespace stdano {

// A neuron that has kernels; the rest of it is DeviceNeuron of arguments.h.
struct NeuronInfo {
  const char* name;
  int states, constants;
};

namespace cuda {

// By its name, null where there are no kernels.
const NeuronInfo* find(const char* name, bool is_double);

// The sums that a call wants, by their numbers (see BackwardCall), in the order in which its partial sums lie.
std::vector<int> wanted_sums(const BackwardCall<NeuronInfo>&);

// Bytes of memory that a call works in.
int64_t scratch_size(const SuperBackwardCall<NeuronInfo>&);

// These take at least one neuron; all but the first two also one time step.
void launch(const ForwardCall<NeuronInfo>&, cudaStream_t);
void launch(const BackwardCall<NeuronInfo>&, cudaStream_t);
void launch(const EncodeCall<NeuronInfo>&, cudaStream_t);
void launch(const DecodeCall&, cudaStream_t);
void launch(const SuperSumsCall&, cudaStream_t);
void launch(const SuperBackwardCall<NeuronInfo>&, void* scratch, cudaStream_t);
void launch(const ChannelSumsCall&, cudaStream_t);
void launch(const ChannelAffineCall&, cudaStream_t);

void launch_pack(const BitsCall&, cudaStream_t);
void launch_unpack(const BitsCall&, cudaStream_t);

// Where one of the sums goes: `channels` numbers of double or float, or one, over all channels.
struct Sum {
  void* out;
  bool is_double, one;
};

// Numbers of double that the partial sums of a quantity take.
int64_t partial_size(const Geometry&);

// From partial sums to sums; and, with a call of norm.h, to what becomes of those behind them. Without partial sums
// (null) that takes none. `ticket`: 0, and so it is only where the last one of several blocks has more to do.
void launch_sums(const Geometry&, const double* partial, const std::vector<Sum>&, cudaStream_t);
void launch_sums(const Geometry&, Dtype, const double* partial, unsigned* ticket, const std::vector<Sum>&,
                 const NormForwardCall&, cudaStream_t);
void launch_sums(const Geometry&, Dtype, const double* partial, unsigned* ticket, const std::vector<Sum>&,
                 const NormBackwardCall&, cudaStream_t);
void launch_sums(const Geometry&, Dtype, const double* partial, unsigned* ticket, const std::vector<Sum>&,
                 const MixtureForwardCall&, cudaStream_t);
void launch_sums(const Geometry&, Dtype, const double* partial, unsigned* ticket, const std::vector<Sum>&,
                 const MixtureBackwardCall&, cudaStream_t);

// The architectures that the kernels were compiled for, as nvcc writes them: "800,860".
const char* architectures();

// Why the driver takes none of the kernels for the current device; "" where it does.
const char* code_error();

}  // namespace cuda
}  // namespace stdano
