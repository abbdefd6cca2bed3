// The launches behind device.h. The kernels of neurons are in files that the build has printed.
#define STDANO_ISA cuda
#include "launch.h"

#include "channels.h"
#include "sums.h"

namespace stdano::cuda {

std::vector<DeviceNeuron>& device_neurons() {
  static std::vector<DeviceNeuron> neurons;
  return neurons;
}

const NeuronInfo* find(const std::string& name, bool is_double) {
  for (const DeviceNeuron& neuron : device_neurons()) {
    if (name == neuron.name && (!is_double || neuron.derive_double)) return &neuron;
  }
  return nullptr;
}

std::vector<int> wanted_sums(const BackwardCall<NeuronInfo>& call) { return list_sums(call); }
int64_t scratch_size(const SuperBackwardCall<NeuronInfo>& call) { return scratch_bytes(call); }

void launch(const ForwardCall<NeuronInfo>& call, cudaStream_t stream) { run(call, {}, stream); }
void launch(const BackwardCall<NeuronInfo>& call, cudaStream_t stream) { run(call, {}, stream); }

void launch(const EncodeCall<NeuronInfo>& call, cudaStream_t stream) {
  encode(call, stream);
  count(call.g, static_cast<int>(call.members.size()), call.codes, call.sums, stream);
}

void launch(const SuperBackwardCall<NeuronInfo>& call, void* scratch, cudaStream_t stream) {
  super_backward(call, scratch, stream);
}

void launch(const DecodeCall& call, cudaStream_t stream) { decode(call, stream); }
void launch(const SuperSumsCall& call, cudaStream_t stream) { super_sums(call, stream); }
void launch(const ChannelSumsCall& call, cudaStream_t stream) { channel_sums(call, stream); }
void launch(const ChannelAffineCall& call, cudaStream_t stream) { channel_affine(call, stream); }

}  // namespace stdano::cuda
