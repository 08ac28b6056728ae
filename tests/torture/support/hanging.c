/* A C extension whose functions must not run outside of the process that loaded it. Without Ruby's headers, which may not be installed:
 * the declarations are those of include/ruby/internal/core/rtypeddata.h.
 *
 * HANG_IN says which function hangs in another process ("mark", "free"), by SIGSTOP. HANG_LOG gets a line for each that does. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long VALUE;
struct type {
  const char *name;
  struct { void (*mark)(void *), (*free)(void *); size_t (*size)(const void *); void (*compact)(void *); void *reserved[1]; } function;
  const struct type *parent;
  void *data;
  VALUE flags;
};
extern VALUE rb_cObject;
VALUE rb_define_class(const char *, VALUE);
void rb_undef_alloc_func(VALUE);
void rb_define_singleton_method(VALUE, const char *, VALUE (*)(VALUE), int);
VALUE rb_data_typed_object_wrap(VALUE, void *, const struct type *);

static pid_t owner;

static void hang(const char *function) {
  const char *wanted = getenv("HANG_IN"), *log = getenv("HANG_LOG");
  char line[64];
  int file;
  if (getpid() == owner || !wanted || strcmp(wanted, function)) return;
  if (log && (file = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) >= 0) {
    if (write(file, line, (size_t)snprintf(line, sizeof line, "%s in %d, which is not %d\n", function, getpid(), owner)) < 0) abort();
    close(file);
  }
  for (;;) kill(getpid(), SIGSTOP);
}

static void mark(void *data) { (void)data; hang("mark"); }
static void release(void *data) { hang("free"); free(data); }

/* RUBY_TYPED_FREE_IMMEDIATELY: freed by the sweep itself. */
static const struct type hanging = { "hanging", { mark, release, NULL, NULL, { NULL } }, NULL, NULL, 1 };

static VALUE make(VALUE class) { return rb_data_typed_object_wrap(class, malloc(16), &hanging); }

void Init_hanging(void) {
  VALUE class = rb_define_class("Hanging", rb_cObject);
  owner = getpid();
  rb_undef_alloc_func(class);
  rb_define_singleton_method(class, "make", make, 0);
}
