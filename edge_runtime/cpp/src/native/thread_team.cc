#include "native/thread_team.h"

#include <algorithm>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace edge::native {
namespace {

constexpr std::uint64_t kFirstShift = 16;
constexpr std::uint64_t kRoundShift = 32;
constexpr std::uint64_t kMostTasks = (1U << 16U) - 1;

// About 50 and 500 microseconds: a token's serial steps are shorter than the first, what lies between two tokens
// mostly shorter than the second.
constexpr std::uint32_t kSpins = 2500;
constexpr std::uint32_t kYields = 400;

// A task that is awaited for longer than this, and than all of the caller's own took, has lost its core.
constexpr std::chrono::microseconds kStall{300};
// For how long its thread is left out: at first, and at most, as this doubles where it happens again soon.
constexpr std::chrono::milliseconds kPause{30};
constexpr std::chrono::milliseconds kLongestPause{480};

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // unlike `yield`, it does wait on today's cores
#endif
}

}  // namespace

ThreadTeam::ThreadTeam(std::size_t threads) : members_(threads) {
  for (std::size_t i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(members_[i], i); });
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  ++round_;
  for (Member& member : members_) {
    member.called = round_;
    member.called.notify_one();
  }
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::run(std::size_t count, TaskRef task) {
  if (workers_.empty() || count == 1) {
    for (std::size_t i = 0; i < count; ++i) task(i);
    return;
  }
  for (std::size_t first = 0; first < count; first += kMostTasks) {
    const std::size_t tasks = std::min<std::size_t>(count - first, kMostTasks);
    const auto shifted = [&](std::size_t i) { task(first + i); };
    const TaskRef of_this_round = shifted;
    task_ = &of_this_round;
    const Clock::time_point now = Clock::now();
    call(tasks, now);
    take(0);
    wait(now);
  }
}

void ThreadTeam::call(std::size_t tasks, Clock::time_point now) {
  ++round_;
  unfinished_.store(tasks, std::memory_order_relaxed);
  const auto takes_part = [&](const Member& member) { return member.left_out_until <= now; };
  const auto parts = static_cast<std::size_t>(std::count_if(members_.begin(), members_.end(), takes_part));
  std::size_t part = 0;
  for (Member& member : members_) {
    const bool has_share = takes_part(member);
    const std::uint64_t first = has_share ? part * tasks / parts : 0;
    const std::uint64_t end = has_share ? ++part * tasks / parts : 0;
    // Whoever sees a share sees task_ and unfinished_.
    member.share.store(std::uint64_t{round_} << kRoundShift | first << kFirstShift | end, std::memory_order_release);
  }
  for (Member& member : members_) {
    if (!takes_part(member)) continue;
    member.called.store(round_);
    if (member.asleep.load()) member.called.notify_one();
  }
}

void ThreadTeam::wait(Clock::time_point started) {
  const auto done = [&] { return unfinished_.load(std::memory_order_acquire) == 0; };
  for (std::uint32_t spins = 0; spins < kSpins; ++spins) {
    if (done()) return;
    pause();
  }
  const Clock::time_point finished = Clock::now();
  const Clock::duration patience = std::max<Clock::duration>(kStall, finished - started);
  bool waited_long = false;
  while (!done()) {
    std::this_thread::yield();
    const Clock::time_point now = Clock::now();
    if (waited_long || now - finished < patience) continue;
    waited_long = true;
    leave_out_the_busy(now);
  }
}

void ThreadTeam::leave_out_the_busy(Clock::time_point now) {
  for (Member& member : members_) {
    if (&member == members_.data() || !member.busy.load(std::memory_order_relaxed)) continue;
    const bool soon = now - member.left_out_until < kLongestPause;
    member.pause = soon ? std::min<Clock::duration>(2 * member.pause, kLongestPause) : kPause;
    member.left_out_until = now + member.pause;
  }
}

void ThreadTeam::take(std::size_t index) {
  std::size_t taken = 0;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    std::atomic<std::uint64_t>& share = members_[(index + i) % members_.size()].share;
    std::uint64_t seen = share.load(std::memory_order_acquire);
    for (;;) {
      const std::uint64_t first = seen >> kFirstShift & kMostTasks;
      const std::uint64_t end = seen & kMostTasks;
      if (first >= end) break;
      const std::uint64_t rest = i == 0 ? seen + (std::uint64_t{1} << kFirstShift) : seen - 1;
      if (!share.compare_exchange_weak(seen, rest, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      // The round cannot end, nor task_ change, before this task is done and counted.
      (*task_)(i == 0 ? first : end - 1);
      ++taken;
      seen = share.load(std::memory_order_acquire);
    }
  }
  if (taken > 0) unfinished_.fetch_sub(taken, std::memory_order_acq_rel);
}

void ThreadTeam::work(Member& self, std::size_t index) {
  std::uint32_t last = 0;
  for (;;) {
    std::uint32_t now = self.called.load(std::memory_order_acquire);
    for (std::uint32_t spins = 0; now == last; ++spins, now = self.called.load(std::memory_order_acquire)) {
      if (spins < kSpins) {
        pause();
      } else if (spins < kSpins + kYields) {
        std::this_thread::yield();
      } else {
        self.asleep = true;
        self.called.wait(now);
        self.asleep = false;
      }
    }
    if (stop_.load()) return;
    last = now;
    self.busy.store(true, std::memory_order_relaxed);
    take(index);
    self.busy.store(false, std::memory_order_relaxed);
  }
}

}  // namespace edge::native
