// The CUDA kernels of one neuron on the host: -DNEURON=LIF -DNEURON_INDEX=0, and for one dtype alone -DDTYPE=float32.
#define STDANO_ISA host_device
#include "host_shim.h"

#include "cuda/launch.h"

namespace stdano {
namespace host_device {
namespace {

#if defined(DTYPE)
using scalar = std::conditional_t<Dtype::DTYPE == Dtype::float16, float16,
                                  std::conditional_t<Dtype::DTYPE == Dtype::bfloat16, bfloat16,
                                                     std::conditional_t<Dtype::DTYPE == Dtype::float64, double, float>>>;
using real = std::conditional_t<Dtype::DTYPE == Dtype::float64, double, float>;

bool has(Dtype dtype) { return dtype == Dtype::DTYPE; }

template <class Call>
void start(const Call& call) {
  if (call.g.N == 0) return;  // as in launch()
  if (call.o.soft_reset) return run<Types<NEURON<real, true>, scalar, real>>(call, nullptr);
  run<Types<NEURON<real, false>, scalar, real>>(call, nullptr);
}
#else
bool has(Dtype) { return true; }

template <class Call>
void start(const Call& call) {
  launch<NEURON>(call, nullptr);
}
#endif

void slices(const Geometry& g, int64_t* columns, int64_t* slabs) {
  const Slices s = make_slices(g);
  *columns = s.columns;
  *slabs = s.slabs;
}

const bool registered = [] {
  devices[NEURON_INDEX] = {start<ForwardCall>,
                           start<BackwardCall>,
                           slices,
                           [](int64_t n, int64_t d) { return divide(n, make_divisor(d)); },
                           [](int64_t n, int64_t d) { return remainder(n, make_divisor(d)); },
                           has};
  return true;
}();

}  // namespace
}  // namespace host_device
}  // namespace stdano
