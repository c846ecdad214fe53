#include "raw_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "edge_runtime/dtype.h"

namespace edge::bench {

std::optional<RawEngine> parse_raw_engine(std::string_view text) {
  if (text == "pread") return RawEngine::kPread;
  if (text == "io_uring") return RawEngine::kUring;
  return std::nullopt;
}

Result<Arena> Arena::map(std::uint64_t bytes, bool touched) {
  void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return fail(ErrorCode::kIo, "no memory for " + std::to_string(bytes) + " bytes");
  Arena arena;
  arena.bytes_ = {static_cast<std::byte*>(data), bytes};
  (void)::madvise(data, bytes, MADV_HUGEPAGE);  // a system without huge pages says no, and that is fine
  if (touched) std::fill(arena.bytes_.begin(), arena.bytes_.end(), std::byte{1});
  return arena;
}

Arena::Arena(Arena&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

Arena::~Arena() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

Result<std::unique_ptr<RawReader>> RawReader::open(const std::vector<std::string>& paths, const RawOptions& options,
                                                   std::uint64_t capacity) {
  if (options.depth == 0 || options.chunk_bytes == 0 || options.chunk_bytes % kPage != 0 || capacity == 0) {
    return fail(ErrorCode::kInvalidArgument, "the raw reader takes a depth of 1 or more, chunks of a multiple of " +
                                                 std::to_string(kPage) + " bytes, and a capacity");
  }
  std::unique_ptr<RawReader> raw(new RawReader());
  raw->options_ = options;
  raw->capacity_ = capacity;
  for (const std::string& path : paths) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (descriptor < 0) {
      const int error = errno;
      const std::string text = path + ": open with O_DIRECT: " + std::generic_category().message(error);
      if (error == EINVAL) return fail(ErrorCode::kUnsupported, text + ": choose a directory on a disk");
      return fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, text);
    }
    raw->descriptors_.push_back(descriptor);
  }
  if (!options.fresh) {
    auto memory = Arena::map(capacity, true);
    if (!memory) return tl::make_unexpected(memory.error());
    raw->memory_ = std::move(*memory);
  }
  if (options.engine == RawEngine::kPread) {
    raw->reader_ = make_pread_reader(raw->descriptors_, options.depth);
  } else {
    auto reader = make_uring_reader(raw->descriptors_, options.depth, raw->memory_.bytes());
    if (!reader) return tl::make_unexpected(reader.error());
    raw->reader_ = std::move(*reader);
  }
  return raw;
}

RawReader::~RawReader() {
  reader_.reset();
  for (const int descriptor : descriptors_) ::close(descriptor);
}

void RawReader::forget() {
  if (options_.fresh) memory_ = Arena();
}

Result<std::span<const std::byte>> RawReader::read(std::span<const Range> ranges) {
  std::uint64_t total = 0;
  for (const Range& range : ranges) {
    if (range.file >= descriptors_.size() || (range.offset | range.length) % kPage != 0) {
      return fail(ErrorCode::kInvalidArgument, "the raw reader takes whole pages of the files it opened");
    }
    if (range.length > capacity_ - total) {
      return fail(ErrorCode::kInvalidArgument, "more than the " + std::to_string(capacity_) + " bytes of the reader");
    }
    total += range.length;
  }
  if (options_.fresh) {
    forget();
    auto memory = Arena::map(capacity_, false);
    if (!memory) return tl::make_unexpected(memory.error());
    memory_ = std::move(*memory);
  }
  chunks_.clear();
  std::byte* destination = memory_.bytes().data();
  for (const Range& range : ranges) {
    for (std::uint64_t at = 0; at < range.length; at += options_.chunk_bytes) {
      const std::uint64_t length = std::min(options_.chunk_bytes, range.length - at);
      chunks_.push_back({range.file, range.offset + at, length, destination});
      destination += length;
    }
  }
  if (auto status = reader_->read(chunks_); !status) return tl::make_unexpected(status.error());
  return memory_.bytes().first(total);
}

}  // namespace edge::bench
