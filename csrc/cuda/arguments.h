// What the kernels of neurons are given, in their own precision, and the neurons that have kernels.
#pragma once

#include <type_traits>
#include <vector>

#include "device.h"
#include "layout.h"

namespace stdano {
namespace STDANO_ISA {

// kDeviceStates, kDeviceConstants, kDeviceDerived: the most that a neuron with kernels has. Written by the build.
#include "device_sizes.h"

constexpr int kForwardThreads = 256;
constexpr int kBackwardThreads = 128;
constexpr int kMostSequences = 8;

template <class real>
constexpr int checkpoint_steps = sizeof(real) == 4 ? kDeviceCheckpointSteps : kDeviceCheckpointStepsDouble;

// One of data and value.
template <class real>
struct ConstantSource {
  const real* data;
  real value;
  int per_neuron;
};

// `derived` and `rest` (see stdano_kernels/define/cuda.py) hold where all constants are numbers. Flags are int, which an
// instruction can test where it lies. A null pointer: not there.
template <class real>
struct Arguments : Layout {
  Dtype dtype;
  real alpha;
  int surrogate;
  int has_tables;  // some constants are tensors
  int has_affine, has_state0, has_codes;
  real derived[kDeviceDerived], rest[kDeviceStates];
  ConstantSource<real> constants[kDeviceConstants];
  const void* x;
  const real* affine;
  const real* state0[kDeviceStates];
  int sequences, which[kMostSequences];
};

// With codes a spike goes to one bit of them; the first neuron of several sets the others to 0.
template <class real>
struct ForwardArguments : Arguments<real> {
  int has_spikes, has_state, has_checkpoints;
  void* spikes;
  real *state[kDeviceStates], *checkpoints;
  void* sequence[kMostSequences];
  uint8_t* codes;
  int bit, is_first;
};

// With codes the gradient of a spike is fma(table[0], grad_spikes, table[the spike ? 2 : 1]), rows of a number for each
// channel, and the result is added to `sum` and goes to `new_sum`, where these are given, instead of grad_x.
template <class real>
struct BackwardArguments : Arguments<real> {
  int has_grad_state;  // a bit for each
  int closes;          // behind the last step nothing is wanted
  const void* grad_spikes;
  const real *checkpoints, *grad_state[kDeviceStates];
  const void* grad_sequence[kMostSequences];
  void* grad_x;
  real *grad_state0[kDeviceStates], *grad_constants[kDeviceConstants];
  int64_t threads;  // of which one takes the neurons that lie as many apart
  double *partial[kDeviceConstants], *partial_shift, *partial_scale;  // [slabs][columns] each
  const uint8_t* codes;
  int bit;
  const real *table, *sum;
  real* new_sum;
};

template <class real>
using ForwardKernel = void (*)(ForwardArguments<real>);
template <class real>
using BackwardKernel = void (*)(BackwardArguments<real>);

// The kernels that serve every call.
template <class real>
struct GeneralKernels {
  ForwardKernel<real> forward;
  BackwardKernel<real> backward;
};

// Those for calls whose constants are numbers and whose elements can be counted in 32 bits: forward, of neighbours as
// many as `width`; backward, of sequences of four steps, or of a multiple of eight.
struct FastKernels {
  ForwardKernel<float> forward;
  BackwardKernel<float> four_steps, eight_steps;
  int width;
};

// As NeuronKernels of rows.h.
struct DeviceNeuron : NeuronInfo {
  int surrogate;
  bool is_long;  // what comes back from a step to the next takes long to compute
  void (*derive)(const float* constants, float* derived, float* rest);
  void (*derive_double)(const double* constants, double* derived, double* rest);  // null: no kernels
  GeneralKernels<float> general;
  GeneralKernels<double> general_double;
  FastKernels of_float32, of_bfloat16, of_float16;
};

// All neurons with kernels; each of the files that the build has printed adds its own.
std::vector<DeviceNeuron>& device_neurons();

struct Registered {
  explicit Registered(const std::vector<DeviceNeuron>& neurons) {
    device_neurons().insert(device_neurons().end(), neurons.begin(), neurons.end());
  }
};

}  // namespace STDANO_ISA
}  // namespace stdano
