// Where blocks come from: one Storage reads one file. Requests are submitted and their completions polled; the caller
// never waits for a device inside submit or poll. What a read fills is memory that the storage hands out, so that a
// mapped storage can hand out the mapping itself and copy nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/result.h"

namespace edge {

// Memory for one block; its destruction gives the memory back in the storage's way.
struct BufferRelease {
  void (*release)(void* owner, std::byte* data, std::uint64_t length) = nullptr;
  void* owner = nullptr;
  std::uint64_t length = 0;
  void operator()(std::byte* data) const { release(owner, data, length); }
};
using Buffer = std::unique_ptr<std::byte, BufferRelease>;

struct ReadRequest {
  std::uint64_t offset = 0;          // in the file
  std::uint64_t length = 0;          // > 0
  std::byte* destination = nullptr;  // offset - (the buffer's offset) bytes into a Buffer of this storage
  std::uint64_t tag = 0;             // comes back with the completion
  bool again = false;                // a re-read after damage: caches of the system are dropped first
};

struct Completion {
  std::uint64_t tag = 0;
  Status status;  // kTruncated: the file ends inside the range; kIo: the system failed the read
};

// Which backend reads a file, and why: for logs and `storage_report`.
struct StorageReport {
  std::string path;
  std::string backend;  // "direct/io_uring", "direct/pool", "buffered/pool", "mapped", "simulated"
  std::string reason;
};

// Calls on one storage come from one thread at a time, except where a backend says otherwise. Fast requests have
// offset, length and destination at multiples of kPage; others are served too, through the page cache.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  // REQUIRES that every Buffer of this storage is gone and no request is under way (drain() sees to that).
  virtual ~Storage() = default;

  virtual const StorageReport& report() const = 0;
  virtual std::uint64_t file_bytes() const = 0;  // at open

  // Memory for [offset, offset + length), aligned to the page. Its bytes mean nothing until a read has filled them, and
  // the caller never writes to them. kIo where the system has no memory left.
  // REQUIRES offset and length at multiples of kPage, within the file.
  virtual Result<Buffer> acquire(std::uint64_t offset, std::uint64_t length) = 0;

  // Begins a read. Failures arrive as completions. Requests may complete in any order.
  // REQUIRES that the destination stays valid until the completion has been polled.
  virtual void submit(const ReadRequest& request) = 0;
  // Appends what has completed since the last poll.
  virtual void poll(std::vector<Completion>& completions) = 0;
  // Forgets requests that have not begun and waits for those that have. None of them completes any more.
  virtual void drain() = 0;

  // Gives the system back what memory of released buffers is kept for the next blocks.
  virtual void trim() {}

  // How many requests keep the device busy: more only wait in line.
  virtual std::size_t depth() const = 0;

  // Called, from any thread, whenever poll would return something new. It must be quick and must not call the storage.
  // REQUIRES no request under way. A storage that runs on its caller's clock never calls it.
  virtual void set_waker(std::function<void()> waker) = 0;
};

// The memory of blocks. It keeps what is released for the next block of the same length: fresh memory has to be zeroed
// page by page, which costs a quarter of the read that fills it. Blocks and kept memory together never exceed `limit`,
// as long as the blocks alone do not; with a limit of 0 nothing is kept. Thread-safe.
class BlockMemory;
std::shared_ptr<BlockMemory> make_block_memory(std::uint64_t limit);

// The ring of io_uring that direct reads go through, if the system grants one. By default each Device has its own, with
// a thread that waits for it; BlockingPager hands its devices one that its own thread drives, so that a completion
// wakes one thread and not two.
class Ring;
std::shared_ptr<Ring> make_driven_ring();

// What reads the files of one device: a ring where there is one, and threads for everything else. All of it starts with
// the first read that needs it. Thread-safe.
class Device;
// Measured at 1 MiB a read: four fill the device, six also hide the verification.
inline constexpr unsigned kDefaultLanes = 6;
inline constexpr unsigned kDefaultDepth = 16;  // a 14 MB block at once: none of its reads waits for a busy processor
struct DeviceOptions {
  unsigned lanes = kDefaultLanes;                 // threads: reads at once where the ring does not run
  unsigned depth = kDefaultDepth;                 // reads of one file at once in the ring
  std::shared_ptr<BlockMemory> memory = nullptr;  // shared with other devices; null: memory that keeps nothing
  std::shared_ptr<Ring> ring = nullptr;           // shared with other devices; null: one of its own
};
std::shared_ptr<Device> make_device(const DeviceOptions& options = {});

enum class StorageKind : std::uint8_t {
  kAuto,
  // By threads: with six of them a cold path that is verified is there as soon as one that is not. One thread that
  // drives a ring and verifies too takes longer (docs/benchmarks.md).
  kDirect,
  kMapped,
  kUring,  // direct, through io_uring or not at all
};
std::string_view name(StorageKind kind);                               // "auto" "direct" "mapped" "uring"
std::optional<StorageKind> parse_storage_kind(std::string_view text);  // nullopt for anything else

// Reads into memory of its own, past the page cache: O_DIRECT, F_NOCACHE on Apple. Where the file system refuses that,
// or takes the flag and drops it (Android's emulated storage), buffered reads whose pages are dropped at once. A file
// that is truncated while open gives kTruncated; one that is replaced by rename or deleted stays readable.
// `why` opens the report's reason. kInvalidArgument: a kind that is not direct; kUnsupported: kUring where it does not
// work.
Result<std::unique_ptr<Storage>> open_direct(const std::string& path, std::shared_ptr<Device> device,
                                             const std::string& why = "asked for",
                                             StorageKind kind = StorageKind::kDirect);

// Maps the file: zero copy, and clean pages that the system can take back without writing them.
// REQUIRES that the file is only ever replaced by rename: reading a mapped page that a truncation took away is SIGBUS,
// and pages that the system dropped and read again are not verified again.
Result<std::unique_ptr<Storage>> open_mapped(const std::string& path, std::shared_ptr<Device> device,
                                             const std::string& why = "asked for");

// kAuto: mapped where clean mapped pages are not charged to the process (Apple), where the file already lies in the
// page cache, and where direct reads do not get past it; else direct. The report says which and why.
Result<std::unique_ptr<Storage>> open_storage(const std::string& path, StorageKind kind,
                                              std::shared_ptr<Device> device);

}  // namespace edge
