// Stand-in for the CUDA runtime, to be put in LD_PRELOAD. It offers one device whose memory is host
// memory and whose streams are synchronous. Kernel launches go to a Python callback (device.py).
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

struct Kernel {
  std::string name;     // mangled device name
  std::string library;  // shared object that registered it
  size_t dynamic_shared_limit;
};

typedef int (*launch_callback)(const char* name, const char* library, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                               unsigned by, unsigned bz, void** args, size_t shared);

static launch_callback callback;
static std::mutex mutex;
static int last_error;
static char message[2048];

static std::map<const void*, Kernel>& kernels() {
  static auto* m = new std::map<const void*, Kernel>;
  return *m;
}

static std::map<void*, size_t>& allocations() {
  static auto* m = new std::map<void*, size_t>;
  return *m;
}

static int capability() {
  static int value = getenv("GPUSIM_ARCH") ? atoi(getenv("GPUSIM_ARCH")) : 86;
  return value;
}

// Import gpusim.device in the running interpreter, once, so that it registers its callback.
static void ensure_python() {
  static bool tried = false;
  if (tried) return;
  auto initialized = (int (*)())dlsym(RTLD_DEFAULT, "Py_IsInitialized");
  auto ensure = (int (*)())dlsym(RTLD_DEFAULT, "PyGILState_Ensure");
  auto release = (void (*)(int))dlsym(RTLD_DEFAULT, "PyGILState_Release");
  auto run = (int (*)(const char*, void*))dlsym(RTLD_DEFAULT, "PyRun_SimpleStringFlags");
  if (!initialized || !ensure || !release || !run || !initialized()) return;
  tried = true;
  int state = ensure();
  run("__import__('gpusim.device')", nullptr);
  release(state);
}

static cudaError_t fail(int error) { return (cudaError_t)(last_error = error); }

extern "C" {

// ---- interface to device.py

void gpusim_set_callback(launch_callback c) { callback = c; }

void gpusim_set_message(const char* text) { snprintf(message, sizeof message, "%s", text); }

int gpusim_allocations(void** p, size_t* n, int max) {
  std::lock_guard<std::mutex> lock(mutex);
  int i = 0;
  for (auto& a : allocations()) {
    if (i < max) {
      p[i] = a.first;
      n[i] = a.second;
    }
    ++i;
  }
  return i;
}

// ---- registration and launch

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  Dl_info info;
  const char* library = dladdr(host, &info) ? info.dli_fname : "";
  std::lock_guard<std::mutex> lock(mutex);
  kernels()[host] = Kernel{name, library, 49152};
}

static thread_local struct {
  dim3 grid, block;
  size_t shared;
  void* stream;
} configuration;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
  configuration = {grid, block, shared, stream};
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = configuration.shared;
  *(void**)stream = configuration.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  std::lock_guard<std::mutex> lock(mutex);
  auto i = kernels().find(host);
  if (i == kernels().end()) return cudaErrorInvalidDeviceFunction;
  *kernel = (cudaKernel_t)&i->second;
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 g, dim3 b, void** args, size_t shared, cudaStream_t) {
  auto* k = (Kernel*)kernel;
  unsigned long long threads = 1ull * b.x * b.y * b.z;
  if (!g.x || !g.y || !g.z || g.x > 2147483647u || g.y > 65535 || g.z > 65535 || !threads || threads > 1024 || b.z > 64) {
    return fail(cudaErrorInvalidConfiguration);
  }
  if (shared > k->dynamic_shared_limit) return fail(cudaErrorInvalidValue);
  ensure_python();
  if (!callback) return fail(cudaErrorNoKernelImageForDevice);
  int error = callback(k->name.c_str(), k->library.c_str(), g.x, g.y, g.z, b.x, b.y, b.z, args, shared);
  return error ? fail(error) : cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void* host, dim3 g, dim3 b, void** args, size_t shared, cudaStream_t stream) {
  cudaKernel_t kernel;
  cudaError_t error = __cudaGetKernel(&kernel, host);
  return error ? fail(error) : __cudaLaunchKernel(kernel, g, b, args, shared, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* host, void** args) {
  return cudaLaunchKernel(host, c->gridDim, c->blockDim, args, c->dynamicSmemBytes, c->stream);
}

cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  std::lock_guard<std::mutex> lock(mutex);
  auto i = kernels().find(host);
  if (i == kernels().end()) return cudaErrorInvalidDeviceFunction;
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value > 101376) return cudaErrorInvalidValue;
    i->second.dynamic_shared_limit = value > 49152 ? value : 49152;
  }
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* host) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!kernels().count(host)) return cudaErrorInvalidDeviceFunction;
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->binaryVersion = a->ptxVersion = capability();
  return cudaSuccess;
}

// ---- device

cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "gpusim (no GPU)");
  p->major = capability() / 10;
  p->minor = capability() % 10;
  p->warpSize = 32;
  p->multiProcessorCount = 82;
  p->totalGlobalMem = 8ull << 30;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 1536;
  p->regsPerMultiprocessor = 65536;
  p->regsPerBlock = 65536;
  p->sharedMemPerBlock = 49152;
  p->sharedMemPerBlockOptin = 101376;
  p->sharedMemPerMultiprocessor = 102400;
  p->textureAlignment = 512;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->l2CacheSize = 6 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *v = capability() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *v = capability() % 10; break;
    case cudaDevAttrMultiProcessorCount: *v = 82; break;
    case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 1536; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 101376; break;
    case cudaDevAttrMaxGridDimX: *v = 2147483647; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *v = 65535; break;
    default: *v = 0;
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* s, int n, int) {
  snprintf(s, n, "0000:00:00.0");
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = (cudaMemPool_t)8;
  return cudaSuccess;
}

// ---- memory

cudaError_t cudaMalloc(void** p, size_t n) {
  ensure_python();
  *p = aligned_alloc(512, (n + 511) / 512 * 512 + 512);
  if (!*p) return fail(cudaErrorMemoryAllocation);
  memset(*p, 0xCB, n);  // recognisable, so that reads of uninitialised memory do not look right
  std::lock_guard<std::mutex> lock(mutex);
  allocations()[*p] = n;
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  std::lock_guard<std::mutex> lock(mutex);
  if (p && !allocations().erase(p)) return fail(cudaErrorInvalidValue);
  free(p);
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) { return cudaMalloc(p, n); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return cudaFree(p); }

cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) {
  *p = malloc(n);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  free(p);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind) {
  memmove(d, s, n);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t) { return cudaMemcpy(d, s, n, k); }
cudaError_t cudaMemcpyPeerAsync(void* d, int, const void* s, int, size_t n, cudaStream_t) {
  return cudaMemcpy(d, s, n, cudaMemcpyDeviceToDevice);
}
cudaError_t cudaMemset(void* d, int v, size_t n) {
  memset(d, v, n);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t) { return cudaMemset(d, v, n); }

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  *free_bytes = 7ull << 30;
  *total = 8ull << 30;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  memset(a, 0, sizeof *a);
  std::lock_guard<std::mutex> lock(mutex);
  bool device = false;
  for (auto& b : allocations()) device |= p >= b.first && p < (char*)b.first + b.second;
  a->type = device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  a->devicePointer = device ? (void*)p : nullptr;
  return cudaSuccess;
}

// ---- errors

cudaError_t cudaGetLastError() {
  int e = last_error;
  last_error = 0;
  return (cudaError_t)e;
}
cudaError_t cudaPeekAtLastError() { return (cudaError_t)last_error; }

const char* cudaGetErrorString(cudaError_t e) {
  static thread_local char text[2200];
  if (e == cudaErrorIllegalAddress && message[0]) {
    snprintf(text, sizeof text, "gpusim: %s", message);
  } else {
    snprintf(text, sizeof text, "CUDA error %d (gpusim)", e);
  }
  return text;
}
const char* cudaGetErrorName(cudaError_t e) { return cudaGetErrorString(e); }

}  // extern "C"
