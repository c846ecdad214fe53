#include "simulator.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "edge_runtime/clock.h"
#include "edge_runtime/dtype.h"
#include "edge_runtime/pager.h"
#include "policies.h"

namespace edge::bench {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

using Policies = std::vector<std::pair<std::string, std::function<std::unique_ptr<EvictionPolicy>()>>>;

const Policies& policies() {
  static const Policies all = {{"fading", make_decayed_frequency},
                               {"lru", [] { return std::make_unique<Lru>(); }},
                               {"lfu", [] { return std::make_unique<Lfu>(); }},
                               {"recency", [] { return std::make_unique<WeightedRecency>(); }}};
  return all;
}

Status check(const SimulationOptions& options) {
  const auto names = eviction_names();
  if (std::find(names.begin(), names.end(), options.eviction) == names.end()) {
    return fail(ErrorCode::kInvalidArgument, "unknown eviction '" + options.eviction + "'");
  }
  for (const SimulatedDevice::Profile& device : options.devices) {
    const auto ascending = [](const auto& a, const auto& b) { return a.bytes >= b.bytes; };
    if (!(device.bytes_per_second > 0) || device.lanes == 0 || device.latency_ns < 0 ||
        std::adjacent_find(device.by_size.begin(), device.by_size.end(), ascending) != device.by_size.end()) {
      return fail(ErrorCode::kInvalidArgument,
                  "a device needs a bandwidth and lanes above 0, latencies of 0 or more, and sizes that ascend");
    }
  }
  for (const SimulatedLevel& level : options.levels) {
    if (level.device >= options.devices.size() || level.spec.rows != level.spec.nodes) {
      return fail(ErrorCode::kInvalidArgument, "a level lies on a device that is not there, or is not whole");
    }
  }
  if (options.verify_bytes_per_second < 0 || options.verifiers == 0 || options.host_ns < 0 ||
      options.layer_compute_ns < 0) {
    return fail(ErrorCode::kInvalidArgument, "times and rates must be 0 or more, and one processor verifies at least");
  }
  return {};
}

class Simulation {
 public:
  Simulation(const SimulationOptions& options, const std::vector<Prompt>& prompts)
      : options_(options), prompts_(prompts) {
    outcome_.served.resize(prompts.size());
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      if (prompts[i].user >= users_.size()) users_.resize(prompts[i].user + 1);
      users_[prompts[i].user].prompts.push_back(i);
    }
  }

  Result<Outcome> run() {
    if (auto opened = open(); !opened) return tl::make_unexpected(opened.error());
    while (step()) {
    }
    outcome_.load_bytes = pager_->stats().bytes_read;
    for (User& user : users_) plan_next(user);
    while (true) {
      if (auto begun = begin_due(); !begun) return tl::make_unexpected(begun.error());
      if (auto done = take_arrived(); !done) return tl::make_unexpected(done.error());
      // A path that was there at once leaves its user with another prompt, perhaps due now.
      if (next_due_ns() <= clock_.now_ns()) continue;
      if (!step()) break;
    }
    outcome_.stats = pager_->stats();
    outcome_.end_ns = clock_.now_ns();
    return std::move(outcome_);
  }

 private:
  struct User {
    std::deque<std::size_t> prompts = {};
    std::optional<LeaseId> lease = std::nullopt;
    std::int64_t ended_ns = 0;     // when the last path was there
    std::int64_t due_ns = kNever;  // when the next fetch begins
    bool fetching = false;
    bool waits = false;              // has found no room since the last event
    std::size_t levels = 0;          // of the path that the lease has
    std::uint64_t layers_ready = 0;  // of it
    std::int64_t computed_ns = 0;    // when the prefill is through with those
  };
  struct Verifier {
    std::int64_t due_ns = kNever;
    LayerCheck check = {};
  };

  Status open() {
    std::vector<std::shared_ptr<SimulatedDevice>> devices;
    devices.reserve(options_.devices.size());
    for (const auto& profile : options_.devices) devices.push_back(std::make_shared<SimulatedDevice>(clock_, profile));
    std::vector<PagedLevel> levels;
    for (const SimulatedLevel& level : options_.levels) {
      const std::string name = "level " + std::to_string(level.spec.level);
      BankLevel bank = BankLevel::blank(name, level.spec);
      auto storage = std::make_unique<SimulatedStorage>(name, bank.file_bytes(), devices[level.device]);
      storages_.push_back(storage.get());
      levels.emplace_back();
      levels.back().push_back({std::move(bank), std::move(storage)});
    }
    PagerOptions options;
    options.budget = options_.budget;
    options.verify = options_.verify_bytes_per_second > 0;
    options.pinned_levels = options_.pinned_levels;
    options.chunk_bytes = options_.chunk_bytes;
    const auto named = [this](const auto& policy) { return policy.first == options_.eviction; };
    options.eviction = std::find_if(policies().begin(), policies().end(), named)->second;
    auto pager = Pager::open(std::move(levels), options, clock_);
    if (!pager) return tl::make_unexpected(std::move(pager.error()));
    pager_ = std::move(*pager);
    devices_ = std::move(devices);
    verifiers_.resize(options_.verifiers);
    pager_->poll_reads();
    return {};
  }

  std::int64_t next_due_ns() const {
    std::int64_t next = kNever;
    for (const User& user : users_) {
      if (!user.waits) next = std::min(next, user.due_ns);
    }
    return next;
  }

  // Moves the clock to what happens next; false where nothing does any more.
  bool step() {
    std::int64_t next = next_due_ns();
    for (const SimulatedStorage* storage : storages_) {
      next = std::min(next, storage->next_completion_ns().value_or(kNever));
    }
    for (const Verifier& verifier : verifiers_) next = std::min(next, verifier.due_ns);
    if (next == kNever) return false;
    clock_.advance(std::max<std::int64_t>(0, next - clock_.now_ns()));
    for (User& user : users_) user.waits = false;
    for (Verifier& verifier : verifiers_) {
      if (verifier.due_ns > clock_.now_ns()) continue;
      verifier.due_ns = kNever;
      pager_->finish_check(verifier.check, LayerVerdict::kGood);
    }
    pager_->poll_reads();
    for (Verifier& verifier : verifiers_) {
      if (verifier.due_ns != kNever) continue;
      const auto check = pager_->take_check();
      if (!check) break;
      const BankLevelSpec& spec = check->bank->spec();
      const auto bytes = static_cast<double>(spec.layer_bytes() + spec.layer_scale_bytes());
      verifier = {clock_.now_ns() + static_cast<std::int64_t>(bytes / options_.verify_bytes_per_second * 1e9), *check};
    }
    return true;
  }

  void plan_next(User& user) {
    user.due_ns =
        user.prompts.empty() ? kNever : user.ended_ns + prompts_[user.prompts.front()].pause_ns + options_.host_ns;
  }

  // Whoever has been due the longest comes first.
  Status begin_due() {
    while (true) {
      User* first = nullptr;
      for (User& user : users_) {
        if (user.waits || user.due_ns > clock_.now_ns()) continue;
        if (first == nullptr || user.due_ns < first->due_ns) first = &user;
      }
      if (first == nullptr) return {};
      User& user = *first;
      for (const auto& device : devices_) device->slow_down(prompts_[user.prompts.front()].slowdown);
      const std::size_t length = prompts_[user.prompts.front()].path.size();
      auto begun = fetch(user, options_.one_level_at_a_time ? std::min<std::size_t>(1, length) : length);
      if (!begun) return tl::make_unexpected(std::move(begun.error()));
      if (!*begun) {
        user.waits = true;
        continue;
      }
      user.fetching = true;
      user.layers_ready = 0;
      user.computed_ns = clock_.now_ns();
      user.due_ns = kNever;
    }
  }

  // Leases the first `levels` of the user's next path; false where he has to wait for room.
  Result<bool> fetch(User& user, std::size_t levels) {
    const std::size_t prompt = user.prompts.front();
    const std::span<const Node> path = std::span(prompts_[prompt].path).first(levels);
    while (true) {
      const auto lease = pager_->fetch(path, user.lease);
      if (lease) {
        user.lease = *lease;
        user.levels = levels;
        outcome_.served[prompt].bytes_read += pager_->lease_bytes_read(*lease);
        return true;
      }
      if (lease.error().code != ErrorCode::kBusy) return tl::make_unexpected(lease.error());
      User* oldest = nullptr;
      for (User& other : users_) {
        if (&other == &user || other.fetching || !other.lease) continue;
        if (oldest == nullptr || other.ended_ns < oldest->ended_ns) oldest = &other;
      }
      if (oldest == nullptr) return false;
      // NOLINTNEXTLINE(bugprone-unchecked-optional-access): only users with a lease are looked at
      pager_->release(*oldest->lease);
      oldest->lease.reset();
      ++outcome_.leases_given_up;
    }
  }

  Status take_arrived() {
    for (User& user : users_) {
      if (!user.fetching) continue;
      const std::size_t prompt = user.prompts.front();
      const std::vector<Node>& path = prompts_[prompt].path;
      while (user.levels < path.size()) {
        // NOLINTNEXTLINE(bugprone-unchecked-optional-access): whoever is fetching has one
        const auto ready = pager_->ready(*user.lease);
        if (!ready) return tl::make_unexpected(ready.error());
        if (!*ready) break;
        auto more = fetch(user, user.levels + 1);
        if (!more) return tl::make_unexpected(std::move(more.error()));
        if (!*more) break;  // asked again after the next event
      }
      if (user.levels < path.size()) continue;
      while (user.layers_ready < pager_->layers()) {
        // NOLINTNEXTLINE(bugprone-unchecked-optional-access): as above
        const auto ready = pager_->ready(*user.lease, user.layers_ready);
        if (!ready) return tl::make_unexpected(ready.error());
        if (!*ready) break;
        ++user.layers_ready;
        user.computed_ns = std::max(user.computed_ns, clock_.now_ns()) + options_.layer_compute_ns;
      }
      if (user.layers_ready < pager_->layers()) continue;
      if (auto ended = end(user, prompt); !ended) return ended;
    }
    return {};
  }

  Status end(User& user, std::size_t prompt) {
    Served& served = outcome_.served[prompt];
    const std::int64_t asked_ns = user.ended_ns + prompts_[prompt].pause_ns;
    const auto layers = static_cast<std::int64_t>(pager_->layers());
    served.fetch_ns = clock_.now_ns() - asked_ns;
    served.stall_ns = user.computed_ns - asked_ns - layers * options_.layer_compute_ns;
    user.fetching = false;
    user.ended_ns = clock_.now_ns();
    user.prompts.pop_front();
    plan_next(user);
    for (User& other : users_) other.waits = false;  // this user's lease can be had now
    const auto hinted = pager_->prefetch(prompts_[prompt].hints);
    if (!hinted) return tl::make_unexpected(hinted.error());
    return {};
  }

  const SimulationOptions& options_;
  const std::vector<Prompt>& prompts_;
  Outcome outcome_;
  std::vector<User> users_;
  ManualClock clock_;
  std::vector<std::shared_ptr<SimulatedDevice>> devices_;
  std::vector<const SimulatedStorage*> storages_;
  std::unique_ptr<Pager> pager_;
  std::vector<Verifier> verifiers_;
};

}  // namespace

std::vector<std::string> eviction_names() {
  std::vector<std::string> names;
  for (const auto& [name, maker] : policies()) names.push_back(name);
  return names;
}

Result<Outcome> simulate(const SimulationOptions& options, const std::vector<Prompt>& prompts) {
  if (auto sound = check(options); !sound) return tl::make_unexpected(std::move(sound.error()));
  return Simulation(options, prompts).run();
}

}  // namespace edge::bench
