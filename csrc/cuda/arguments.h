// What the kernels of neurons are given, in their own precision, and the neurons that have kernels.
#pragma once

#include <type_traits>

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

// With codes a spike goes to one bit of them; the neuron of bit 0 sets the others to 0. The gradient of a spike is then
// fma(table[0], grad_spikes, table[the spike ? 2 : 1]), rows of a number for each channel, and the result is added to
// `sum` and goes to `new_sum`, where these are given, instead of grad_x.
struct Coded {
  uint8_t* codes;
  int bit;
  const void *table, *sum;
  void* new_sum;
};

// `derived` and `rest` (see stdano_kernels/define/cuda.py) hold where all constants are numbers. A null pointer: not
// there.
template <class real>
struct Arguments : Layout {
  Dtype dtype;
  real alpha;
  int surrogate;
  // Whether constants are tensors, states given, x of one step for all: int, which an instruction tests in place.
  int has_tables, has_state0, constant;
  real derived[kDeviceDerived], rest[kDeviceStates];
  ConstantSource<real> constants[kDeviceConstants];
  const void* x;
  const real* affine;
  const real* state0[kDeviceStates];
  int sequences, which[kMostSequences];
  Coded coded;
};

template <class real>
struct ForwardArguments : Arguments<real> {
  void* spikes;
  real *state[kDeviceStates], *checkpoints;
  void* sequence[kMostSequences];
};

template <class real>
struct BackwardArguments : Arguments<real> {
  int has_grad_state;  // a bit for each
  int closes;          // behind the last step nothing is wanted
  const void* grad_spikes;
  const real *checkpoints, *grad_state[kDeviceStates];
  const void* grad_sequence[kMostSequences];
  void* grad_x;
  real *grad_state0[kDeviceStates], *grad_constants[kDeviceConstants];
  Slices slices;
  int by_warp;                            // a bit for each of the sums: warps store theirs (see Slices)
  double* partial[2 + kDeviceConstants];  // of shift, of scale, and of the constants
};

template <class real>
using ForwardKernel = void (*)(ForwardArguments<real>);
template <class real>
using BackwardKernel = void (*)(BackwardArguments<real>);

// The kernels that serve every call in a precision, and what makes `derived` and `rest`.
template <class real>
struct GeneralKernels {
  void (*derive)(const real* constants, real* derived, real* rest);
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

// As NeuronKernels of rows.h. Some have no kernels in double, whose `derive` is then null.
struct DeviceNeuron : NeuronInfo, GeneralKernels<float>, GeneralKernels<double> {
  int surrogate;
  bool is_long;  // what comes back from a step to the next takes long to compute
  FastKernels of_float32, of_half;
};

// All that have kernels; each of the files that the build has printed adds its own.
inline std::vector<DeviceNeuron>& all_neurons() {
  static std::vector<DeviceNeuron> all;
  return all;
}

struct Registered {
  explicit Registered(const std::vector<DeviceNeuron>& some) {
    all_neurons().insert(all_neurons().end(), some.begin(), some.end());
  }
};

}  // namespace STDANO_ISA
}  // namespace stdano
