// Seeded traces of what prompts are about: a leaf of a tree of fanout 16 and three levels, one a fetch.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "edge_runtime/node.h"

namespace edge::bench {

inline constexpr std::uint32_t kFanout = 16;
inline constexpr std::uint64_t kLeaves = std::uint64_t{kFanout} * kFanout * kFanout;

inline std::uint64_t nodes_of_level(std::uint32_t level) { return std::uint64_t{1} << (4 * level); }
inline std::vector<Node> path_to(std::uint64_t leaf) { return {{1, leaf / 256}, {2, leaf / 16}, {3, leaf}}; }

struct Visit {
  std::size_t user = 0;
  std::uint64_t leaf = 0;
};
struct Trace {
  std::size_t users;
  std::vector<Visit> visits;
};

// Topics whose popularity is Zipf's at every node of the tree; which child is the popular one depends on `taste`.
class Topics {
 public:
  explicit Topics(std::uint32_t seed) : random_(seed) {
    for (std::uint32_t rank = 1; rank <= kFanout; ++rank) weights_.push_back(1.0 / rank);
    zipf_ = std::discrete_distribution<std::uint64_t>(weights_.begin(), weights_.end());
  }

  // Keeps the first `kept` levels of the leaf's path and draws the others.
  std::uint64_t draw(std::uint64_t taste, std::uint64_t leaf = 0, std::uint32_t kept = 0) {
    std::uint64_t node = leaf >> (4 * (3 - kept));
    for (std::uint32_t level = kept; level < 3; ++level) {
      // An odd factor permutes the ranks of the 16 children, differently at every node.
      std::uint64_t mixed =
          (taste * 0x9E3779B97F4A7C15ULL) ^ ((node + (std::uint64_t{level} << 32U)) * 0xC2B2AE3D27D4EB4FULL);
      mixed ^= mixed >> 29U;
      mixed *= 0xBF58476D1CE4E5B9ULL;
      mixed ^= mixed >> 32U;
      const std::uint64_t child = (zipf_(random_) * (2 * (mixed % 8) + 1) + (mixed >> 8U)) % kFanout;
      node = node * kFanout + child;
    }
    return node;
  }

  // A conversation: half of the prompts stay on the topic, others move to a sibling, within the branch, or away.
  std::uint64_t converse(std::uint64_t taste, std::uint64_t leaf) {
    const double move = uniform_(random_);
    if (move < 0.5) return leaf;
    if (move < 0.75) return draw(taste, leaf, 2);
    if (move < 0.9) return draw(taste, leaf, 1);
    return draw(taste);
  }

  std::size_t pick(std::size_t count) { return std::uniform_int_distribution<std::size_t>(0, count - 1)(random_); }

 private:
  std::mt19937 random_;
  std::vector<double> weights_;
  std::discrete_distribution<std::uint64_t> zipf_;
  std::uniform_real_distribution<double> uniform_;
};

// Every prompt about something else: popularity alone.
inline Trace zipf_topics(std::uint32_t seed, std::size_t fetches) {
  Topics topics(seed);
  Trace trace{1, {}};
  for (std::size_t i = 0; i < fetches; ++i) trace.visits.push_back({0, topics.draw(seed)});
  return trace;
}

// One user's conversations, whose taste changes every 300 prompts.
inline Trace topic_drift(std::uint32_t seed, std::size_t fetches) {
  Topics topics(seed);
  Trace trace{1, {}};
  std::uint64_t leaf = 0;
  for (std::size_t i = 0; i < fetches; ++i) {
    leaf = topics.converse(seed * 1000 + i / 300, leaf);
    trace.visits.push_back({0, leaf});
  }
  return trace;
}

// Four users in turn by chance, each with a taste and a conversation of his own.
inline Trace multi_user(std::uint32_t seed, std::size_t fetches) {
  Topics topics(seed);
  Trace trace{4, {}};
  std::vector<std::uint64_t> leaves(trace.users, 0);
  for (std::size_t i = 0; i < fetches; ++i) {
    const std::size_t user = topics.pick(trace.users);
    leaves[user] = topics.converse(seed * 10 + user, leaves[user]);
    trace.visits.push_back({user, leaves[user]});
  }
  return trace;
}

// An evaluation walks over all leaves while prompts of popular topics come in between.
inline Trace scan(std::uint32_t seed, std::size_t fetches) {
  Topics topics(seed);
  Trace trace{1, {}};
  std::uint64_t next = 0;
  for (std::size_t i = 0; i < fetches; ++i) {
    trace.visits.push_back({0, i % 2 == 0 ? next++ % kLeaves : topics.draw(seed)});
  }
  return trace;
}

inline std::vector<std::pair<std::string, std::function<Trace(std::uint32_t, std::size_t)>>> all_traces() {
  return {{"Zipf topics", zipf_topics}, {"topic drift", topic_drift}, {"four users", multi_user}, {"scan", scan}};
}

}  // namespace edge::bench
