// The native engine: a decoder over anchor.native.safetensors, which it maps and reads in place. FFN memory is further
// neurons of the FFN that it belongs to (Pouransari et al. 2025, section 2, appendix I): one loop takes both.
//
// For a given file, memory and instruction set, logits are bitwise the same whatever the number of threads and however
// a prompt is cut into calls.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "edge_runtime/native_config.h"

namespace edge {

// The mapped weights and the threads that work on them; its contexts share both. Immutable; safe to share.
class NativeModel {
 public:
  // REQUIRES that the file is never truncated in place while the model is open. kInvalidArgument: no threads;
  // kNotFound, kIo, kTruncated, kBadFormat, kUnsupported.
  static Result<std::shared_ptr<NativeModel>> open(const std::string& path, const NativeConfig& config,
                                                   std::size_t threads);
  ~NativeModel();

  const NativeConfig& config() const { return config_; }
  std::uint64_t kv_bytes() const;  // of a context's cache, full: f16 beside quantised weights, else f32

 private:
  friend class NativeContext;
  struct Impl;
  NativeModel(NativeConfig config, std::unique_ptr<Impl> impl);

  NativeConfig config_;
  std::unique_ptr<Impl> impl_;
};

// One conversation's KV cache. Thread-compatible; calls on contexts of one model take turns.
class NativeContext {
 public:
  explicit NativeContext(std::shared_ptr<NativeModel> model);
  ~NativeContext();

  std::size_t position() const { return position_; }  // tokens in the cache
  void reset() { position_ = 0; }
  // Forgets the tokens from `position` on. REQUIRES position <= position().
  void rewind(std::size_t position) { position_ = position; }

  // Appends the tokens and gives the logits [vocab_size] of the last, which stay until the next call. memory: the
  // handle of a lease (lease_registry.h), 0 for none; each layer waits for its own blocks when it comes to them.
  // kInvalidArgument: no tokens, more than the context holds, an id beyond the vocabulary, or memory of another width
  // or number of layers; kStaleHandle; whatever reading the memory failed with. After an error the context is as it
  // was.
  Result<std::span<const float>> forward(std::span<const std::int64_t> tokens, std::int64_t memory);

 private:
  struct Impl;
  std::shared_ptr<NativeModel> model_;
  std::unique_ptr<Impl> impl_;
  std::size_t position_ = 0;
};

}  // namespace edge
