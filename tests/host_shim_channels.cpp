// The CUDA kernels around channels on the host.
#define STDANO_ISA host_device
#include "host_shim.h"

#include "cuda/channels.h"

namespace stdano {
namespace host_device {
namespace {

template <class Call>
void start(const Call& call) {
  launch(call, nullptr);
}

const bool registered = [] {
  channel_device = {[](const Geometry& g, int members, const uint8_t* codes, double* sums) {
                      count(g, members, codes, sums, nullptr);
                    },
                    start<DecodeCall>, start<SuperSumsCall>, start<ChannelSumsCall>, start<ChannelAffineCall>};
  return true;
}();

}  // namespace
}  // namespace host_device
}  // namespace stdano
