#define STDANO_ISA cuda
#include "device.h"
#include "launch.h"

namespace stdano::cuda {

void launch_lif(const ForwardCall& call, cudaStream_t stream) { launch<LIF>(call, stream); }
void launch_lif(const BackwardCall& call, cudaStream_t stream) { launch<LIF>(call, stream); }

}  // namespace stdano::cuda
