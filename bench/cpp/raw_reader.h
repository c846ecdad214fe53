// The baseline of iobench: reads ranges of files past the page cache, as fast as plain code can, with nothing else to
// do. Every choice that changes its speed is an option, so that the benchmark can look for the best one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/result.h"

namespace edge::bench {

enum class RawEngine : std::uint8_t { kPread, kUring };
std::optional<RawEngine> parse_raw_engine(std::string_view text);  // "pread" "io_uring"
// Whether this build and this system have it.
bool has_uring();

struct RawOptions {
  RawEngine engine = RawEngine::kPread;
  std::uint64_t chunk_bytes = std::uint64_t{1} << 20;  // of one read; a multiple of kPage
  unsigned depth = 1;                                  // reads under way at once: threads, or entries of the ring
  bool fresh = false;  // new memory for every read, as a pager needs, instead of memory that is there already
};

struct Range {
  std::size_t file = 0;  // index into the paths
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

// One read of one range's part.
struct Chunk {
  std::size_t file = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::byte* destination = nullptr;
};

// How chunks are read. The descriptors outlive it.
class ChunkReader {
 public:
  ChunkReader() = default;
  ChunkReader(const ChunkReader&) = delete;
  ChunkReader& operator=(const ChunkReader&) = delete;
  virtual ~ChunkReader() = default;
  // Returns when all have been read. REQUIRES file < the number of descriptors. kIo; a short read is one too.
  virtual Status read(std::span<const Chunk> chunks) = 0;
};
std::unique_ptr<ChunkReader> make_pread_reader(const std::vector<int>& descriptors, unsigned depth);
// `memory`, unless empty, is registered with the kernel once instead of at every read. kUnsupported, kIo.
Result<std::unique_ptr<ChunkReader>> make_uring_reader(const std::vector<int>& descriptors, unsigned depth,
                                                       std::span<std::byte> memory);

// Anonymous memory of whole pages, huge ones where the system gives them.
class Arena {
 public:
  // With `touched` every page is there already. kIo.
  static Result<Arena> map(std::uint64_t bytes, bool touched);
  Arena() = default;
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

// All calls come from the thread that opened it: rings are cheapest with one issuer.
class RawReader {
 public:
  // Reads of at most `capacity` bytes together. kNotFound, kIo, kInvalidArgument; kUnsupported: the file system has no
  // O_DIRECT, or the system no io_uring.
  static Result<std::unique_ptr<RawReader>> open(const std::vector<std::string>& paths, const RawOptions& options,
                                                 std::uint64_t capacity);
  RawReader(const RawReader&) = delete;
  RawReader& operator=(const RawReader&) = delete;
  ~RawReader();

  // The ranges one after another, valid until the next read. REQUIRES offsets and lengths at multiples of kPage.
  // kInvalidArgument, kIo.
  Result<std::span<const std::byte>> read(std::span<const Range> ranges);
  // Gives fresh memory back now, so that the next read does not pay for it.
  void forget();

 private:
  RawReader() = default;
  RawOptions options_;
  std::uint64_t capacity_ = 0;
  std::vector<int> descriptors_;
  Arena memory_;
  std::vector<Chunk> chunks_;
  std::unique_ptr<ChunkReader> reader_;
};

// The share of the range's pages that the page cache holds, 0 to 1. REQUIRES offset at a multiple of kPage.
// kInvalidArgument: a range that the file does not have; kNotFound, kIo.
Result<double> page_cache_share(const std::string& path, std::uint64_t offset, std::uint64_t length);

}  // namespace edge::bench
