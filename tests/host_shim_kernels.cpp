// The CUDA kernels of the neurons in neurons.inc, on the host.
#define STDANO_ISA host_device
#include "host_shim.h"

#include "cuda/launch.h"
#include "cuda/neuron.h"

namespace stdano {
namespace host_device {

std::vector<DeviceNeuron>& device_neurons() {
  static std::vector<DeviceNeuron> neurons;
  return neurons;
}

#include "neurons.inc"

namespace {

const NeuronInfo* find(const char* name, bool is_double) {
  for (const DeviceNeuron& neuron : device_neurons()) {
    if (std::strcmp(neuron.name, name) == 0 && (!is_double || neuron.derive_double)) return &neuron;
  }
  return nullptr;
}

template <class Call>
void start(const Call& call) {
  if (call.g.N > 0) run(call, {}, nullptr);
}

const bool registered = [] {
  device = {find,
            start<ForwardCall<NeuronInfo>>,
            start<BackwardCall<NeuronInfo>>,
            [](const EncodeCall<NeuronInfo>& call) { encode(call, nullptr); },
            [](const SuperBackwardCall<NeuronInfo>& call, void* scratch) { super_backward(call, scratch, nullptr); },
            scratch_bytes,
            list_sums,
            [](int64_t n, int64_t d) { return divide(n, make_divisor(d)); },
            [](int64_t n, int64_t d) -> int64_t { return divide(static_cast<uint32_t>(n), make_divisor(d)); }};
  return true;
}();

}  // namespace
}  // namespace host_device
}  // namespace stdano
