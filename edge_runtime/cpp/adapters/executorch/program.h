// A .pte file and its methods, driven through ExecuTorch's C++ interface with memory of our own: no Python, no torch.
//
// Ownership: a Method keeps its Program alive, and the Program its mapped file.
// Threads: Program is immutable after load and may be shared. Method is not thread-safe: one call at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "edge_runtime/result.h"

namespace edge::et {

enum class ElementType : std::uint8_t { kF32, kI64 };

std::size_t element_bytes(ElementType type);

// A dense, row-major tensor that somebody else owns.
struct TensorView {
  ElementType type;
  std::vector<std::int32_t> shape;
  const void* data;  // aligned to its element
};

class Method;

class Program {
 public:
  // Maps the file; it must not be truncated in place while the program lives. kNotFound, kIo, kBadFormat.
  static Result<std::shared_ptr<const Program>> load(const std::string& path);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const std::string& path() const;
  std::vector<std::string> method_names() const;

 private:
  friend class Method;
  struct Impl;
  explicit Program(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class Method {
 public:
  // Allocates the planned memory, which holds the method's mutable state (a decoder's KV cache), zero at first.
  // Packed weights are shared with the other methods of the process. kNotFound, kBadFormat, kUnsupported (an operator
  // that this process has not registered).
  static Result<std::unique_ptr<Method>> load(std::shared_ptr<const Program> program, const std::string& name);
  ~Method();
  Method(const Method&) = delete;
  Method& operator=(const Method&) = delete;

  // Runs once. The outputs point into the method's memory and are valid until the next call. After an error the
  // method may be called again, but its state may hold a part of the failed call. kInvalidArgument for inputs that the
  // program does not take; an operator's own error is passed on as it is.
  Result<std::vector<TensorView>> execute(std::span<const TensorView> inputs);

  // Bytes of planned memory: state and activations.
  std::uint64_t planned_bytes() const;

 private:
  struct Impl;
  explicit Method(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The threads of the process's one ExecuTorch pool, the caller's included. Programs hold on to the pool, so it can
// change only while no Method lives: kBusy otherwise. REQUIRES threads >= 1.
Status set_thread_count(std::uint32_t threads);
std::uint32_t thread_count();

}  // namespace edge::et
