// The interface between the operators (ops.cpp, which knows torch) and the CPU kernels (passes.h, which does
// not): one table of functions an instruction set, and the neurons that were compiled for it.
#pragma once

#include "../call.h"

namespace stdano {

// BatchNorm and the neuron behind it; `sums` are [kChannelSums][channels].
struct NormScan {
  const NormForwardCall& norm;
  const ForwardCall<NeuronKernels>& scan;
  double* sums;
};
struct NormScanBackward {
  const NormBackwardCall& norm;
  const BackwardCall<NeuronKernels>& scan;  // its sums are [constants + 2][channels]
  ChannelAffineCall affine;
};

// forward, decode and channel_affine handle blocks begin..end-1, super_backward blocks of its own, backward slabs, and
// what takes sums channel slabs; norm_... handle groups of channels, of which there may be none. How neurons are divided
// depends on the call's shape alone, never on the number of threads, so sums are the same on every machine.
struct CpuKernels {
  int64_t (*blocks)(const Geometry&);
  int64_t (*slabs)(const Geometry&, bool by_channel);
  int64_t (*channel_slabs)(const Geometry&);
  int64_t (*super_blocks)(const Geometry&);
  int64_t (*groups)(const Geometry&);
  void (*forward)(const ForwardCall<NeuronKernels>&, int64_t begin, int64_t end);
  void (*backward)(const BackwardCall<NeuronKernels>&, int64_t begin, int64_t end);
  void (*encode)(const EncodeCall<NeuronKernels>&, int64_t begin, int64_t end);
  void (*decode)(const DecodeCall&, int64_t begin, int64_t end);
  void (*super_sums)(const SuperSumsCall&, int64_t begin, int64_t end);
  void (*super_backward)(const SuperBackwardCall<NeuronKernels>&, int64_t begin, int64_t end);
  void (*channel_sums)(const ChannelSumsCall&, int64_t begin, int64_t end);
  void (*channel_affine)(const ChannelAffineCall&, int64_t begin, int64_t end);
  void (*norm_forward)(const NormScan&, int64_t begin, int64_t end);
  void (*norm_backward)(const NormScanBackward&, int64_t begin, int64_t end);
  const NeuronKernels* neurons;
  int neuron_count;
};

// Spikes as bits (bits.cpp). pack() stops at a value that no bits stand for, and is then false.
namespace packing {
int64_t count_parts(const BitsCall&);
bool pack(const BitsCall&, int64_t begin, int64_t end);
void unpack(const BitsCall&, int64_t begin, int64_t end);
}  // namespace packing

namespace generic {
extern const CpuKernels kernels;
}
#if defined(__x86_64__)
namespace x86_64_v3 {
extern const CpuKernels kernels;
}
namespace x86_64_v4 {
extern const CpuKernels kernels;
}
#endif

}  // namespace stdano
