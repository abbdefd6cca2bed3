// Lets a host compiler build csrc/cuda/launch.h: the words that CUDA adds to C++, and a launch as a loop over the grid.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "call.h"

// Of what a block shares, each element belongs to one thread; so the threads may run one after the other.
#define __shared__ static
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index {
  unsigned x;
};
static Index threadIdx, blockIdx, blockDim;

#define STDANO_LAUNCH(kernel, blocks, threads, stream, ...)                               \
  do {                                                                                    \
    const unsigned grid = (blocks);                                                       \
    blockDim.x = (threads);                                                               \
    for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x) {                               \
      for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) kernel(__VA_ARGS__); \
    }                                                                                     \
  } while (false)

// What host_shim_kernels.cpp, built once for each neuron, hands to the program of host_shim_main.cpp. A build of fewer
// neurons or dtypes compiles faster; what is missing is passed over.
struct Device {
  void (*forward)(const stdano::ForwardCall&);
  void (*backward)(const stdano::BackwardCall&);
  void (*slices)(const stdano::Geometry&, int64_t* columns, int64_t* slabs);
  int64_t (*divide)(int64_t numerator, int64_t divisor);
  int64_t (*remainder)(int64_t numerator, int64_t divisor);
  bool (*has)(stdano::Dtype, bool soft_reset);
};
extern Device devices[3];

// The same from host_shim_channels.cpp.
struct ChannelDevice {
  void (*encode)(const stdano::EncodeCall&);
  void (*decode)(const stdano::DecodeCall&);
  void (*super_sums)(const stdano::SuperSumsCall&);
  void (*super_backward)(const stdano::SuperBackwardCall&);
  void (*channel_sums)(const stdano::ChannelSumsCall&);
  void (*channel_affine)(const stdano::ChannelAffineCall&);
  void (*slices)(const stdano::Geometry&, int64_t* columns, int64_t* slabs);
  bool (*has)(stdano::Dtype);
};
extern ChannelDevice channel_device;
