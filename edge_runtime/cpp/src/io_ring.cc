#include "io_ring.h"

#ifdef EDGE_HAS_LIBURING
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "file_descriptor.h"
#endif

namespace edge {

#ifdef EDGE_HAS_LIBURING

namespace {

constexpr std::uint64_t kWake = UINT64_MAX;  // a completion's user data; else the slot of a read

class UringRing final : public IoRing {
 public:
  UringRing(unsigned depth, FileDescriptor event) : event_(std::move(event)), slots_(depth) {
    for (std::size_t slot = depth; slot > 0; --slot) free_.push_back(slot - 1);
  }
  UringRing(const UringRing&) = delete;
  UringRing& operator=(const UringRing&) = delete;
  ~UringRing() override {
    if (open_) ::io_uring_queue_exit(&ring_);
  }

  // An errno, 0: it is open.
  int open() {
    const auto entries = static_cast<unsigned>(slots_.size()) + 1;  // and the wake-up
    // The driver is in the kernel whenever it has nothing to do: completions need not interrupt it. Linux 6.1.
    constexpr unsigned kOneDriver = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED;
    int error = -::io_uring_queue_init(entries, &ring_, kOneDriver);
    disabled_ = error == 0;
    if (error == EINVAL) error = -::io_uring_queue_init(entries, &ring_, 0);
    if (error != 0) return error;
    open_ = true;
    io_uring_probe* const probe = ::io_uring_get_probe_ring(&ring_);
    const bool reads = probe != nullptr && ::io_uring_opcode_supported(probe, IORING_OP_READ) != 0;
    ::io_uring_free_probe(probe);
    return reads ? 0 : EOPNOTSUPP;
  }

  void read(RingRead read) override {
    {
      const std::scoped_lock lock(mutex_);
      queue_.push_back(std::move(read));
      if (queue_.size() > 1) return;  // it is on its way
    }
    wake();
  }

  void wake() override {
    {
      const std::scoped_lock lock(mutex_);
      // Before it waits again it begins what is queued; and what it wakes itself for is why it does not wait.
      if (std::this_thread::get_id() == driver_) return;
    }
    (void)::eventfd_write(event_.get(), 1);
  }

  void drive() override {
    if (!listening_) start();
    submit();
    // An error, such as memory short for a moment, leaves the requests where they are: the next drive() tries again.
    (void)::io_uring_submit_and_wait(&ring_, 1);
    reap();
  }

 private:
  void start() {
    {
      const std::scoped_lock lock(mutex_);
      driver_ = std::this_thread::get_id();
    }
    if (disabled_) (void)::io_uring_enable_rings(&ring_);  // from here on the ring is this thread's
    listen();
    listening_ = true;
  }

  void listen() {
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
    ::io_uring_prep_read(entry, event_.get(), &event_count_, sizeof(event_count_), 0);
    ::io_uring_sqe_set_data64(entry, kWake);
  }

  // Begins what is queued, as far as there are slots.
  void submit() {
    while (!free_.empty()) {
      RingRead read;
      {
        const std::scoped_lock lock(mutex_);
        if (queue_.empty()) return;
        read = std::move(queue_.front());
        queue_.pop_front();
      }
      if (!read.wanted()) {
        read.done(-ECANCELED);
        continue;
      }
      const std::size_t slot = free_.back();
      free_.pop_back();
      slots_[slot] = std::move(read);
      const RingRead& begun = slots_[slot];
      io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
      ::io_uring_prep_read(entry, begun.fd, begun.destination, static_cast<unsigned>(begun.length), begun.offset);
      ::io_uring_sqe_set_data64(entry, slot);
      // Each on its own: fresh pages are faulted in meanwhile, and a batch would hold the first read back for the last.
      (void)::io_uring_submit(&ring_);
    }
  }

  void reap() {
    std::array<io_uring_cqe*, 16> entries{};
    while (const unsigned count = ::io_uring_peek_batch_cqe(&ring_, entries.data(), entries.size())) {
      for (unsigned i = 0; i < count; ++i) {
        const std::uint64_t data = ::io_uring_cqe_get_data64(entries[i]);
        const std::int64_t result = entries[i]->res;
        ::io_uring_cqe_seen(&ring_, entries[i]);
        if (data == kWake) {
          listen();
          continue;
        }
        const RingRead read = std::move(slots_[data]);
        free_.push_back(data);
        read.done(result);
      }
    }
  }

  const FileDescriptor event_;
  std::mutex mutex_;
  std::deque<RingRead> queue_;
  std::thread::id driver_;
  // Of the driver:
  io_uring ring_{};
  bool open_ = false;
  bool disabled_ = false;
  bool listening_ = false;
  std::uint64_t event_count_ = 0;
  std::vector<RingRead> slots_;
  std::vector<std::size_t> free_;
};

}  // namespace

Result<std::unique_ptr<IoRing>> IoRing::create(unsigned depth) {
  FileDescriptor event(::eventfd(0, EFD_CLOEXEC));
  int error = errno;
  if (event.valid()) {
    auto ring = std::make_unique<UringRing>(depth, std::move(event));
    error = ring->open();
    if (error == 0) return ring;
  }
  return fail(ErrorCode::kUnsupported, "the system refuses io_uring: " + std::generic_category().message(error));
}

#else

Result<std::unique_ptr<IoRing>> IoRing::create(unsigned /*depth*/) {
#if defined(__ANDROID__)
  // Its filter does not fail the call but kills the process, so there is no trying.
  return fail(ErrorCode::kUnsupported, "Android keeps io_uring from apps");
#elif defined(__linux__)
  return fail(ErrorCode::kUnsupported, "this build has no io_uring: liburing was not found");
#else
  return fail(ErrorCode::kUnsupported, "io_uring is Linux's");
#endif
}

#endif

}  // namespace edge
