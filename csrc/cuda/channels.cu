#define STDANO_ISA cuda
#include "channels.h"

#include "device.h"

namespace stdano::cuda {

void launch(const ChannelSumsCall& call, cudaStream_t stream) {
  choose_numbers(call.dtype, [&](auto n) {
    channel_sums<typename decltype(n)::scalar, typename decltype(n)::real>(call, stream);
  });
}

void launch(const ChannelAffineCall& call, cudaStream_t stream) {
  choose_numbers(call.dtype, [&](auto n) {
    channel_affine<typename decltype(n)::scalar, typename decltype(n)::real>(call, stream);
  });
}

}  // namespace stdano::cuda
