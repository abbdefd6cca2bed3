// The passes for each dtype, and the table of kernels of one instruction set.
#pragma once

#include "norm.h"
#include "super_neuron.h"

namespace stdano {
namespace STDANO_ISA {

// printed.h, written by the build: the neurons that come with the library, and `printed`, a table of them.
#include "printed.h"

template <class Call>
Dtype dtype_of(const Call& call) {
  return call.dtype;
}
inline Dtype dtype_of(const NormScan& call) { return call.scan.dtype; }
inline Dtype dtype_of(const NormScanBackward& call) { return call.scan.dtype; }

template <template <class, class> class Pass, class Call>
void run_pass(const Call& call, int64_t begin, int64_t end) {
  switch (dtype_of(call)) {
    case Dtype::float32: return Pass<float, float>::run(call, begin, end);
    case Dtype::float64: return Pass<double, double>::run(call, begin, end);
    case Dtype::bfloat16: return Pass<bfloat16, float>::run(call, begin, end);
    case Dtype::float16: return Pass<float16, float>::run(call, begin, end);
  }
}

// The passes under names that run_pass can take.
#define STDANO_PASS(Name, Call, function)                                           \
  template <class scalar, class real>                                               \
  struct Name {                                                                     \
    static void run(const Call& call, int64_t begin, int64_t end) {                 \
      function<scalar, real>(call, begin, end);                                     \
    }                                                                               \
  };                                                                                \
  inline void run(const Call& call, int64_t begin, int64_t end) { run_pass<Name>(call, begin, end); }
STDANO_PASS(Forward, ForwardCall<NeuronKernels>, forward)
STDANO_PASS(Backward, BackwardCall<NeuronKernels>, backward)
STDANO_PASS(Encode, EncodeCall<NeuronKernels>, encode)
STDANO_PASS(Decode, DecodeCall, decode)
STDANO_PASS(SuperSums, SuperSumsCall, super_sums)
STDANO_PASS(SuperBackward, SuperBackwardCall<NeuronKernels>, super_backward)
STDANO_PASS(ChannelSums, ChannelSumsCall, channel_sums)
STDANO_PASS(ChannelAffine, ChannelAffineCall, channel_affine)
STDANO_PASS(NormForwardPass, NormScan, norm_forward)
STDANO_PASS(NormBackwardPass, NormScanBackward, norm_backward)
#undef STDANO_PASS

extern const CpuKernels kernels{count_forward_blocks,
                             count_slabs,
                             count_channel_slabs,
                             count_super_blocks,
                             count_groups,
                             run,
                             run,
                             run,
                             run,
                             run,
                             run,
                             run,
                             run,
                             run,
                             run,
                             printed,
                             sizeof(printed) / sizeof(printed[0])};

}  // namespace STDANO_ISA
}  // namespace stdano
