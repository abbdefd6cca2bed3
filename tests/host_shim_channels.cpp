// The CUDA kernels around channels on the host.
#define STDANO_ISA host_device
#include "host_shim.h"

#include "cuda/channels.h"

namespace stdano {
namespace host_device {
namespace {

template <class Call, void (*function)(const Call&, void*)>
void start(const Call& call) {
  function(call, nullptr);
}

const bool registered = [] {
  channel_device = {[](const Geometry& g, int members, const uint8_t* codes, double* sums) {
                      count(g, members, codes, sums, nullptr);
                    },
                    start<DecodeCall, decode>, start<SuperSumsCall, super_sums>, start<ChannelSumsCall, channel_sums>,
                    start<ChannelAffineCall, channel_affine>};
  return true;
}();

}  // namespace
}  // namespace host_device
}  // namespace stdano
