#define STDANO_ISA cuda
#include "device.h"
#include "launch.h"

namespace stdano::cuda {

void launch_slif(const ForwardCall& call, cudaStream_t stream) { launch<SLIF>(call, stream); }
void launch_slif(const BackwardCall& call, cudaStream_t stream) { launch<SLIF>(call, stream); }

}  // namespace stdano::cuda
