/* A process whose clock is wrong: CLOCK_AHEAD seconds ahead, behind where that is below zero; and besides as many seconds as the file
   CLOCK_FILE says, which may change at any moment. To be preloaded. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The file's one number, which all processes share. */
static const volatile int64_t *shared(void) {
  static const volatile int64_t *number;
  const char *path = getenv("CLOCK_FILE");
  if (!number && path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) abort();
    void *map = mmap(0, sizeof *number, PROT_READ, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) abort();
    close(file);
    number = map;
  }
  return number;
}

static long ahead(void) {
  const char *told = getenv("CLOCK_AHEAD");
  const volatile int64_t *more = shared();
  return (told ? atol(told) : 0) + (more ? *more : 0);
}

int clock_gettime(clockid_t which, struct timespec *now) {
  int failed = (int)syscall(SYS_clock_gettime, which, now);
  if (!failed && which == CLOCK_REALTIME) now->tv_sec += ahead();
  return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
  (void)zone;
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (now) *now = exact.tv_sec;
  return exact.tv_sec;
}
