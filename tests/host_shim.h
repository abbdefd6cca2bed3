// Lets a host compiler build the kernels of csrc/cuda: the words that CUDA adds to C++, and a launch as a loop over the
// grid.
#pragma once

#define STDANO_INLINE inline

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/device.h"

// Of what a block shares, each element belongs to one thread; so the threads may run one after the other.
#define __shared__ static
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define STDANO_SLOW_DOUBLE true  // the longer of two ways to sums

struct Index3 {
  unsigned x;
};
static Index3 threadIdx, blockIdx;

#define STDANO_LAUNCH(kernel, blocks, threads, ...)                                    \
  do {                                                                                 \
    const unsigned grid = (blocks);                                                    \
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x) {                            \
      for (threadIdx.x = 0; threadIdx.x < (threads); ++threadIdx.x) kernel(__VA_ARGS__); \
    }                                                                                  \
  } while (false)

// What host_shim_kernels.cpp, built with printed neurons, hands to the program of host_shim_main.cpp. A neuron that the
// build is without is passed over.
struct Device {
  const stdano::NeuronInfo* (*find)(const char* name, bool is_double);
  void (*forward)(const stdano::ForwardCall<stdano::NeuronInfo>&);
  void (*backward)(const stdano::BackwardCall<stdano::NeuronInfo>&);
  void (*encode)(const stdano::EncodeCall<stdano::NeuronInfo>&);
  void (*super_backward)(const stdano::SuperBackwardCall<stdano::NeuronInfo>&, void* scratch);
  int64_t (*scratch_size)(const stdano::SuperBackwardCall<stdano::NeuronInfo>&);
  std::vector<int> (*wanted_sums)(const stdano::BackwardCall<stdano::NeuronInfo>&);
  int64_t (*divide)(int64_t numerator, int64_t divisor);
  int64_t (*divide_in_32_bits)(int64_t numerator, int64_t divisor);
};
extern Device device;

// The same from host_shim_channels.cpp.
struct ChannelDevice {
  void (*count)(const stdano::Geometry&, int members, const uint8_t* codes, double* sums);
  void (*decode)(const stdano::DecodeCall&);
  void (*super_sums)(const stdano::SuperSumsCall&);
  void (*channel_sums)(const stdano::ChannelSumsCall&);
  void (*channel_affine)(const stdano::ChannelAffineCall&);
};
extern ChannelDevice channel_device;
