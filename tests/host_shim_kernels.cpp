// The CUDA kernels of the neurons in neurons.inc, on the host.
#define STDANO_ISA host_device
#include "host_shim.h"

#include "cuda/launch.h"
#include "cuda/neuron.h"

namespace stdano {
namespace host_device {

#include "neurons.inc"

namespace {

template <class Call>
void start(const Call& call) {
  if (call.g.N > 0) launch(call, nullptr);
}

const bool registered = [] {
  device = {find,
            start<ForwardCall<NeuronInfo>>,
            start<BackwardCall<NeuronInfo>>,
            [](const EncodeCall<NeuronInfo>& call) { encode(call, nullptr); },
            [](const SuperBackwardCall<NeuronInfo>& call, void* scratch) { launch(call, scratch, nullptr); },
            scratch_size,
            wanted_sums,
            [](int64_t n, int64_t d) { return divide(n, make_divisor(d)); },
            [](int64_t n, int64_t d) -> int64_t { return divide(static_cast<uint32_t>(n), make_divisor(d)); }};
  return true;
}();

}  // namespace
}  // namespace host_device
}  // namespace stdano
