#define STDANO_ISA cuda
#include "device.h"
#include "launch.h"

namespace stdano::cuda {

void launch_llif(const ForwardCall& call, cudaStream_t stream) { launch<LLIF>(call, stream); }
void launch_llif(const BackwardCall& call, cudaStream_t stream) { launch<LLIF>(call, stream); }

}  // namespace stdano::cuda
