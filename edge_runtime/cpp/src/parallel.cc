#include "edge_runtime/parallel.h"

namespace edge {
namespace {

class Serial final : public Parallel {
 public:
  std::size_t threads() const override { return 1; }
  void run(std::size_t count, TaskRef task) override {
    for (std::size_t i = 0; i < count; ++i) task(i);
  }
};

}  // namespace

Parallel& serial() {
  static Serial alone;
  return alone;
}

}  // namespace edge
