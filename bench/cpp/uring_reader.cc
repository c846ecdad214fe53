// One thread, `depth` reads in the ring, files and memory registered where the system allows it.
#include <algorithm>
#include <cstring>
#include <string>
#include <system_error>

#include "raw_reader.h"

#ifdef EDGE_BENCH_HAS_LIBURING
#include <liburing.h>
#include <sys/uio.h>
#endif

namespace edge::bench {

#ifdef EDGE_BENCH_HAS_LIBURING

namespace {

std::string message(int error) { return std::generic_category().message(-error); }

int init(unsigned depth, io_uring& ring) {
#if defined(IORING_SETUP_SINGLE_ISSUER) && defined(IORING_SETUP_DEFER_TASKRUN)
  // Completions are handled when we wait for them, not by interrupting us; older kernels do not know the flags.
  if (::io_uring_queue_init(depth, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN) == 0) return 0;
#endif
  return ::io_uring_queue_init(depth, &ring, 0);
}

class UringReader final : public ChunkReader {
 public:
  UringReader() = default;
  UringReader(const UringReader&) = delete;
  UringReader& operator=(const UringReader&) = delete;
  ~UringReader() override {
    if (open_) ::io_uring_queue_exit(&ring_);
  }

  Status open(const std::vector<int>& descriptors, unsigned depth, std::span<std::byte> memory) {
    depth_ = depth;
    if (const int error = init(depth, ring_); error < 0) {
      return fail(ErrorCode::kUnsupported, "io_uring: " + message(error));
    }
    open_ = true;
    if (const int error =
            ::io_uring_register_files(&ring_, descriptors.data(), static_cast<unsigned>(descriptors.size()));
        error < 0) {
      return fail(ErrorCode::kIo, "io_uring: registering files: " + message(error));
    }
    if (!memory.empty()) {
      const iovec whole{memory.data(), memory.size()};
      registered_ = ::io_uring_register_buffers(&ring_, &whole, 1) == 0;  // else the limit of locked memory is low
    }
    return {};
  }

  Status read(std::span<const Chunk> chunks) override {
    std::size_t submitted = 0;
    std::size_t completed = 0;
    int error = 0;
    while (completed < submitted || (submitted < chunks.size() && error == 0)) {
      while (submitted < chunks.size() && submitted - completed < depth_ && error == 0) prepare(chunks[submitted++]);
      if (const int got = ::io_uring_submit_and_wait(&ring_, 1); got < 0 && got != -EINTR) {
        return fail(ErrorCode::kIo, "io_uring: submit: " + message(got));
      }
      io_uring_cqe* entry = nullptr;
      while (::io_uring_peek_cqe(&ring_, &entry) == 0) {
        const auto wanted = static_cast<std::int64_t>(::io_uring_cqe_get_data64(entry));
        if (entry->res < 0) error = entry->res;
        if (entry->res >= 0 && entry->res != wanted) error = -EIO;
        ::io_uring_cqe_seen(&ring_, entry);
        ++completed;
      }
    }
    if (error < 0) return fail(ErrorCode::kIo, "io_uring: read: " + message(error));
    return {};
  }

 private:
  void prepare(const Chunk& chunk) {
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);  // the ring has depth_ entries: never null
    const auto length = static_cast<unsigned>(chunk.length);
    const auto file = static_cast<int>(chunk.file);
    if (registered_) {
      ::io_uring_prep_read_fixed(entry, file, chunk.destination, length, chunk.offset, 0);
    } else {
      ::io_uring_prep_read(entry, file, chunk.destination, length, chunk.offset);
    }
    ::io_uring_sqe_set_flags(entry, IOSQE_FIXED_FILE);
    ::io_uring_sqe_set_data64(entry, chunk.length);
  }

  io_uring ring_{};
  unsigned depth_ = 0;
  bool open_ = false;
  bool registered_ = false;
};

}  // namespace

bool has_uring() {
  io_uring ring{};
  if (init(1, ring) < 0) return false;
  ::io_uring_queue_exit(&ring);
  return true;
}

Result<std::unique_ptr<ChunkReader>> make_uring_reader(const std::vector<int>& descriptors, unsigned depth,
                                                       std::span<std::byte> memory) {
  auto reader = std::make_unique<UringReader>();
  if (auto status = reader->open(descriptors, depth, memory); !status) return tl::make_unexpected(status.error());
  return reader;
}

#else

bool has_uring() { return false; }

Result<std::unique_ptr<ChunkReader>> make_uring_reader(const std::vector<int>& /*descriptors*/, unsigned /*depth*/,
                                                       std::span<std::byte> /*memory*/) {
  return fail(ErrorCode::kUnsupported, "io_uring: built without liburing: install it and build again");
}

#endif

}  // namespace edge::bench
