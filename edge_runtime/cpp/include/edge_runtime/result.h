// Errors are values: every fallible function of the core returns Result<T>; none throws.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace edge {

// One code per failure that a caller can tell apart. The numbers are part of the C ABI: append, never renumber.
enum class ErrorCode : std::uint8_t {
  kInvalidArgument = 1,  // the caller's argument is out of range; nothing was done
  kNotFound = 2,         // a file, node or handle that does not exist
  kIo = 3,               // the operating system failed a call; the message holds its text
  kTruncated = 4,        // a file ends before its header says it does
  kBadFormat = 5,        // not our format, or a value the format forbids
  kUnsupported = 6,      // a version, dtype or kind that this build does not know
  kChecksum = 7,         // bytes differ from their checksum, after one re-read
  kNeverFits = 8,        // no amount of eviction makes the request fit; Error::required_bytes would do
  kBusy = 9,             // leases in use are in the way; release one and retry
  kBlocked = 10,         // the node is blocked or removed
  kCancelled = 11,       // the lease was released or cancelled while waiting
  kStaleHandle = 12,     // a registry handle whose lease is gone
};

struct Error {
  ErrorCode code;
  std::string message;               // one line: the file, what is wrong, what to do
  std::uint64_t required_bytes = 0;  // kNeverFits: the smallest budget that would do
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = tl::expected<void, Error>;

inline tl::unexpected<Error> fail(ErrorCode code, std::string message, std::uint64_t required_bytes = 0) {
  return tl::make_unexpected(Error{code, std::move(message), required_bytes});
}

}  // namespace edge
