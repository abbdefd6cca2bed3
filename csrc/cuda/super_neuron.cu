#define STDANO_ISA cuda
#include "super_neuron.h"

#include "device.h"

namespace stdano::cuda {

void launch(const EncodeCall& call, cudaStream_t stream) {
  choose_numbers(call.neurons.o[0].dtype, [&](auto n) {
    encode<typename decltype(n)::scalar, typename decltype(n)::real>(call, stream);
  });
}

void launch(const DecodeCall& call, cudaStream_t stream) {
  choose_numbers(call.dtype, [&](auto n) {
    decode<typename decltype(n)::scalar, typename decltype(n)::real>(call, stream);
  });
}

void launch(const SuperSumsCall& call, cudaStream_t stream) {
  choose_numbers(call.dtype, [&](auto n) {
    super_sums<typename decltype(n)::scalar, typename decltype(n)::real>(call, stream);
  });
}

void launch(const SuperBackwardCall& call, cudaStream_t stream) {
  choose_numbers(call.neurons.o[0].dtype, [&](auto n) {
    super_backward<typename decltype(n)::scalar, typename decltype(n)::real>(call, stream);
  });
}

}  // namespace stdano::cuda
