// What device.h declares. The kernels of neurons are in files that the build has printed.
#define STDANO_ISA cuda
#include "launch.h"

#include "bits.h"
#include "channels.h"
#include "sums.h"

namespace stdano::cuda {

void launch(const EncodeCall<NeuronInfo>& call, cudaStream_t stream) {
  encode(call, stream);
  if (call.sums) count(call.g, static_cast<int>(call.members.size()), call.codes, call.sums, stream);
}

}  // namespace stdano::cuda
