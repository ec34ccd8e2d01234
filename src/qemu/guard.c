/*
 * The guard: the small process between the host's daemon and one guest.
 *
 * A host may run a VM only until a deadline, which the daemon moves on as long as the VM's voters
 * confirm the lease. The daemon can crash, hang or be stopped, so it is not trusted to stop the
 * guest in time: the guard is. It is the guest's parent, keeps the deadline in a kernel timer that
 * also counts suspended time, and sends SIGSTOP when it passes, whatever anybody else does. It
 * decides nothing: only an explicit `resume` with a deadline in the future lets a paused guest go
 * on, and how the guest ended is kept until somebody has said `release`.
 *
 * Rules that all of the code below keeps:
 * - Between the start and the release nothing here can block: sockets do not block, buffers are
 *   bounded, a client that does not read is dropped, and no file is written.
 * - Before anything else is done in a turn, and before each command, the deadline is checked: no
 *   command that arrives late can overtake it.
 * - What the kernel says of the guest (stands, goes on, is gone) counts, not what we asked for. A
 *   pause is answered when the guest stands, a kill when no process of it is left.
 * - The guest dies with the guard (PR_SET_PDEATHSIG), also while it is stopped.
 *
 * The protocol is described in docs/protocols/guard.md, the reasons in docs/decisions/0002.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_CLIENTS 16
#define IN_BYTES 256
#define OUT_BYTES 4096
#define LINE_BYTES 512
#define WORD_BYTES 128
#define MAX_NUMBER INT64_C(9007199254740991) /* what a JavaScript number holds exactly */

/* ---- what is known of the guest ------------------------------------------------------------- */

enum state {
	RUNNING, /* may run until the deadline */
	PAUSING, /* SIGSTOP has been sent, the kernel has not yet said that it stands */
	PAUSED,  /* stands; only `resume` changes that */
	ENDING,  /* its process has ended, others that it started have not yet */
	EXITED,  /* no process of it is left */
};
static const char *const state_names[] = { "running", "pausing", "paused", "exiting", "exited" };

static struct {
	const char *vm, *name, *socket_path, *log_path;
	int64_t epoch, deadline_ms;
	pid_t pid;
	enum state state;
	bool standing;       /* as the kernel said last */
	bool by_deadline;    /* why it is PAUSING or PAUSED */
	bool deadline_told;  /* `paused deadline` is said once per pause, even if others interfere */
	bool exit_by_signal;
	int exit_number;
} guest;

static int listener = -1, timer = -1, signals = -1, exec_pipe = -1, log_file = -1;
static bool ending; /* SIGTERM: leave once the guest is gone */

/* ---- clients -------------------------------------------------------------------------------- */

/* A client whose pause or kill is not done yet; its further commands wait, so answers keep order. */
enum waiting { NOTHING, FOR_PAUSE, FOR_EXIT };

struct client {
	int fd; /* -1: free */
	enum waiting waits;
	uint64_t heard; /* turn in which it last said something */
	size_t in_bytes, out_bytes;
	char in[IN_BYTES], out[OUT_BYTES];
};
static struct client clients[MAX_CLIENTS];
static uint64_t turn;

static void client_drop(struct client *client)
{
	close(client->fd);
	client->fd = -1;
}

static void client_flush(struct client *client)
{
	while (client->fd >= 0 && client->out_bytes > 0) {
		ssize_t sent = send(client->fd, client->out, client->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0) {
			if (errno != EAGAIN && errno != EINTR)
				client_drop(client);
			return;
		}
		client->out_bytes -= (size_t)sent;
		memmove(client->out, client->out + sent, client->out_bytes);
	}
}

/* Queues one line. Who lets a whole buffer of lines pile up does not read, and is dropped. */
__attribute__((format(printf, 2, 3))) static void say(struct client *client, const char *format, ...)
{
	char line[LINE_BYTES];
	va_list arguments;
	if (client->fd < 0)
		return;
	va_start(arguments, format);
	int bytes = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	if (bytes > (int)sizeof line - 2)
		bytes = sizeof line - 2;
	line[bytes++] = '\n';
	if (client->out_bytes + (size_t)bytes > sizeof client->out) {
		client_drop(client);
		return;
	}
	memcpy(client->out + client->out_bytes, line, (size_t)bytes);
	client->out_bytes += (size_t)bytes;
	client_flush(client);
}

static const char *exit_text(const char *between)
{
	static char text[32];
	snprintf(text, sizeof text, "%s%s%d", guest.exit_by_signal ? "signal" : "",
	         guest.exit_by_signal ? between : "", guest.exit_number);
	return text;
}

static void say_ok(struct client *client)
{
	if (guest.state == EXITED)
		say(client, "ok state=exited exit=%s", exit_text(":"));
	else
		say(client, "ok state=%s deadline=%" PRId64, state_names[guest.state], guest.deadline_ms);
}

/* Answers everybody who waits for this. */
static void answer_waiting(enum waiting what, const char *error)
{
	for (struct client *client = clients; client < clients + MAX_CLIENTS; client++) {
		if (client->fd < 0 || client->waits != what)
			continue;
		client->waits = NOTHING;
		if (error != NULL)
			say(client, "error %s", error);
		else
			say_ok(client);
	}
}

static void tell_all(const char *line)
{
	for (struct client *client = clients; client < clients + MAX_CLIENTS; client++)
		say(client, "%s", line);
}

/* ---- stopping, watching and ending the guest ------------------------------------------------ */

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* To the process itself, in case it changed its group, and to all of its group. The process is not
 * reaped before its group has been killed, so neither number can belong to anybody else.
 *
 * SIGSTOP goes to the process alone, and to the rest of its group once it stands (see `watch`): a
 * process that waits for its vfork()ed child would never stand if the child was stopped first. */
static void signal_guest(int signal)
{
	if (guest.state >= ENDING)
		return;
	kill(guest.pid, signal);
	if (signal != SIGSTOP)
		kill(-guest.pid, signal);
}

/* Kills what the guest left behind in other process groups: as a "subreaper" we are its parent. */
static void kill_orphans(void)
{
	DIR *proc = opendir("/proc");
	if (proc == NULL)
		return;
	for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
		char path[300], stat[512];
		pid_t pid = atoi(entry->d_name), parent;
		if (pid <= 0)
			continue;
		snprintf(path, sizeof path, "/proc/%d/stat", pid);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		ssize_t bytes = read(fd, stat, sizeof stat - 1);
		close(fd);
		stat[bytes > 0 ? bytes : 0] = '\0';
		const char *rest = strrchr(stat, ')'); /* the name in brackets may contain anything */
		if (rest != NULL && sscanf(rest, ") %*c %d", &parent) == 1 && parent == getpid())
			kill(pid, SIGKILL);
	}
	closedir(proc);
}

/* Asks the kernel what became of the guest, and draws the conclusions. */
static void watch(void)
{
	siginfo_t info;
	bool none_left = false;

	for (;;) {
		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0) {
			if (errno == EINTR)
				continue;
			none_left = errno == ECHILD;
			break;
		}
		if (info.si_pid == 0)
			break;
		if (info.si_pid == guest.pid && guest.state < ENDING) {
			guest.exit_by_signal = info.si_code != CLD_EXITED;
			guest.exit_number = info.si_status;
			kill(-guest.pid, SIGKILL);
			guest.state = ENDING;
		}
		while (waitid(P_PID, (id_t)info.si_pid, &info, WEXITED) < 0 && errno == EINTR)
			;
	}

	while (guest.state < ENDING) {
		info.si_pid = 0;
		if (waitid(P_PID, (id_t)guest.pid, &info, WSTOPPED | WCONTINUED | WNOHANG) < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		if (info.si_pid == 0)
			break;
		guest.standing = info.si_code == CLD_STOPPED;
		/* Somebody else's SIGCONT does not count as a resume. */
		if (!guest.standing && guest.state != RUNNING) {
			guest.state = PAUSING;
			signal_guest(SIGSTOP);
		}
	}

	if (guest.state == PAUSING && guest.standing) {
		kill(-guest.pid, SIGSTOP);
		guest.state = PAUSED;
		answer_waiting(FOR_PAUSE, NULL);
		if (guest.by_deadline && !guest.deadline_told)
			tell_all("paused deadline");
		guest.deadline_told = guest.by_deadline;
	}
	if (guest.state == ENDING) {
		if (!none_left) {
			kill_orphans();
		} else {
			char line[64];
			guest.state = EXITED;
			answer_waiting(FOR_PAUSE, "the guest has exited");
			answer_waiting(FOR_EXIT, NULL);
			snprintf(line, sizeof line, "exited %s", exit_text(" "));
			tell_all(line);
		}
	}
}

static void pause_guest(bool by_deadline)
{
	guest.by_deadline = by_deadline;
	guest.deadline_told = false;
	guest.state = PAUSING;
	signal_guest(SIGSTOP);
	/* It may have stood already, stopped by somebody else; then the kernel tells no news, and what we
	 * know is still true, unless this finds that it went on meanwhile. */
	watch();
}

/* The deadline is a moment from which on the guest must not run. */
static void check_deadline(void)
{
	if (guest.state == RUNNING && now_ms() >= guest.deadline_ms)
		pause_guest(true);
}

static bool set_deadline(int64_t deadline_ms)
{
	struct itimerspec when = {
		.it_value = { .tv_sec = deadline_ms / 1000, .tv_nsec = deadline_ms % 1000 * 1000000 },
	};
	guest.deadline_ms = deadline_ms;
	return timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL) == 0;
}

/* ---- commands ------------------------------------------------------------------------------- */

static bool number_of(const char *text, int64_t *value)
{
	char *end;
	if (text == NULL || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*value = strtoll(text, &end, 10);
	return errno == 0 && *end == '\0' && *value >= 0 && *value <= MAX_NUMBER;
}

static void command_status(struct client *client)
{
	say(client,
	    "ok vm=%s name=%s epoch=%" PRId64 " pid=%d state=%s exit=%s pause=%s deadline=%" PRId64
	    " now=%" PRId64,
	    guest.vm, guest.name, guest.epoch, guest.pid, state_names[guest.state],
	    guest.state >= ENDING ? exit_text(":") : "-",
	    guest.state != PAUSING && guest.state != PAUSED ? "-" : guest.by_deadline ? "deadline" : "command",
	    guest.deadline_ms, now_ms());
}

static void command_resume(struct client *client, int64_t deadline_ms)
{
	if (guest.state >= ENDING) {
		say(client, "error the guest has exited");
	} else if (deadline_ms <= now_ms()) {
		say(client, "error the deadline %" PRId64 " has passed, it is %" PRId64, deadline_ms, now_ms());
	} else if (!set_deadline(deadline_ms)) {
		say(client, "error the timer cannot be set: %s", strerror(errno));
	} else {
		answer_waiting(FOR_PAUSE, "resumed by another command");
		guest.state = RUNNING;
		guest.standing = false;
		signal_guest(SIGCONT);
		say_ok(client);
	}
}

static void command_pause(struct client *client)
{
	if (guest.state >= ENDING) {
		say(client, "error the guest has exited");
		return;
	}
	client->waits = FOR_PAUSE;
	if (guest.state == RUNNING)
		pause_guest(false);
	else if (guest.state == PAUSED)
		answer_waiting(FOR_PAUSE, NULL);
}

static void command_release(struct client *client)
{
	if (guest.state != EXITED) {
		say(client, "error the guest has not exited");
		return;
	}
	/* Before the answer, so that whoever has it may start the next guard at once. */
	unlink(guest.socket_path);
	flock(log_file, LOCK_UN);
	say(client, "ok released");
	exit(0);
}

static void command(struct client *client, char *line)
{
	char *rest = NULL;
	const char *verb = strtok_r(line, " \r", &rest);
	const char *argument = strtok_r(NULL, " \r", &rest);
	bool extra = strtok_r(NULL, " \r", &rest) != NULL;
	int64_t deadline_ms = 0;

	if (verb == NULL)
		verb = "";
	bool takes_deadline = strcmp(verb, "extend") == 0 || strcmp(verb, "resume") == 0;
	if (takes_deadline ? extra || !number_of(argument, &deadline_ms) : argument != NULL) {
		say(client, "error %s", takes_deadline ? "a deadline in milliseconds was expected"
		                                       : "unknown command, or too many words");
		return;
	}

	check_deadline();
	watch(); /* no answer shall be older than its question */
	if (strcmp(verb, "extend") == 0) {
		/* Later only: of two daemons' messages the older may arrive last. */
		if (guest.state < ENDING && deadline_ms > guest.deadline_ms && !set_deadline(deadline_ms) &&
		    guest.state == RUNNING)
			pause_guest(true); /* a deadline that no timer watches is none */
		say_ok(client);
	} else if (strcmp(verb, "resume") == 0) {
		command_resume(client, deadline_ms);
	} else if (strcmp(verb, "pause") == 0) {
		command_pause(client);
	} else if (strcmp(verb, "kill") == 0) {
		client->waits = FOR_EXIT;
		signal_guest(SIGKILL);
		if (guest.state == EXITED)
			answer_waiting(FOR_EXIT, NULL);
	} else if (strcmp(verb, "status") == 0) {
		command_status(client);
	} else if (strcmp(verb, "release") == 0) {
		command_release(client);
	} else {
		say(client, "error unknown command, or too many words");
	}
}

/* Does the commands that are in the buffer, up to the first that must wait. */
static void client_commands(struct client *client)
{
	char *end;
	while (client->fd >= 0 && client->waits == NOTHING &&
	       (end = memchr(client->in, '\n', client->in_bytes)) != NULL) {
		size_t bytes = (size_t)(end - client->in) + 1;
		char line[IN_BYTES];
		memcpy(line, client->in, bytes);
		line[bytes - 1] = '\0';
		client->in_bytes -= bytes;
		memmove(client->in, end + 1, client->in_bytes);
		command(client, line);
	}
	if (client->fd >= 0 && client->waits == NOTHING && client->in_bytes == sizeof client->in) {
		say(client, "error the line is too long");
		if (client->fd >= 0)
			client_drop(client);
	}
}

static void client_read(struct client *client)
{
	ssize_t bytes = recv(client->fd, client->in + client->in_bytes,
	                     sizeof client->in - client->in_bytes, MSG_DONTWAIT);
	if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (bytes <= 0) {
		client_drop(client);
		return;
	}
	client->heard = turn;
	client->in_bytes += (size_t)bytes;
	client_commands(client);
}

/* A new client always gets a place, if need be that of the one that has been silent for longest: a
 * restarted daemon must not be kept out by forgotten connections. */
static void client_accept(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	struct client *place = clients;
	for (struct client *client = clients; client < clients + MAX_CLIENTS; client++) {
		if (client->fd < 0) {
			place = client;
			break;
		}
		if (client->heard < place->heard)
			place = client;
	}
	if (place->fd >= 0)
		client_drop(place);
	*place = (struct client){ .fd = fd, .heard = turn };
}

/* ---- start ---------------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2), noreturn)) static void refuse(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fprintf(stderr, "guard: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, "\n");
	va_end(arguments);
	exit(1);
}

static bool is_word(const char *text)
{
	size_t bytes = text == NULL ? 0 : strlen(text);
	for (size_t i = 0; i < bytes; i++)
		if ((unsigned char)text[i] <= ' ' || text[i] == 0x7f)
			return false;
	return bytes > 0 && bytes <= WORD_BYTES;
}

static char **read_arguments(int count, char **values)
{
	const char *epoch = NULL, *deadline = NULL;
	int at = 1;
	guest.epoch = -1;
	for (; at + 1 < count && strcmp(values[at], "--") != 0; at += 2) {
		const char *key = values[at], *value = values[at + 1];
		if (strcmp(key, "--socket") == 0) guest.socket_path = value;
		else if (strcmp(key, "--vm") == 0) guest.vm = value;
		else if (strcmp(key, "--name") == 0) guest.name = value;
		else if (strcmp(key, "--epoch") == 0) epoch = value;
		else if (strcmp(key, "--deadline-ms") == 0) deadline = value;
		else if (strcmp(key, "--log") == 0) guest.log_path = value;
		else refuse("unknown option %s", key);
	}
	if (at + 1 >= count || guest.socket_path == NULL || guest.log_path == NULL)
		refuse("usage: guard --socket PATH --vm ID --name NAME --epoch N --deadline-ms MS --log FILE"
		       " -- COMMAND...");
	if (!is_word(guest.vm) || !is_word(guest.name))
		refuse("--vm and --name must be words of at most %d bytes", WORD_BYTES);
	if (!number_of(epoch, &guest.epoch))
		refuse("--epoch must be a number");
	if (!number_of(deadline, &guest.deadline_ms))
		refuse("--deadline-ms must be a number");
	if (guest.deadline_ms <= now_ms())
		refuse("the deadline %" PRId64 " has passed, it is %" PRId64, guest.deadline_ms, now_ms());
	return values + at + 1;
}

/* The lock on the log is shared with the guest, whose output goes there: as long as a guard or any
 * process of its guest is alive, no second guard can start a second instance on this host. */
static void open_log(void)
{
	log_file = open(guest.log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (log_file < 0)
		refuse("cannot open %s: %s", guest.log_path, strerror(errno));
	if (flock(log_file, LOCK_EX | LOCK_NB) < 0)
		refuse("another guard or its guest has %s in use", guest.log_path);
}

static void open_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(guest.socket_path) >= sizeof address.sun_path)
		refuse("the path of the socket is longer than %zu bytes: %s", sizeof address.sun_path - 1,
		       guest.socket_path);
	strcpy(address.sun_path, guest.socket_path);
	unlink(guest.socket_path); /* a dead guard's: we have the lock */
	umask(0177);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
	    listen(listener, MAX_CLIENTS) < 0)
		refuse("cannot listen at %s: %s", guest.socket_path, strerror(errno));
	umask(0077); /* for what the guest makes */
}

static void open_kernel_events(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* ignored by the parent's habit it would hide how the guest ended */
	sigprocmask(SIG_SETMASK, &set, NULL);
	signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (signals < 0 || timer < 0)
		refuse("cannot make a signal or timer descriptor: %s", strerror(errno));
}

__attribute__((noreturn)) static void become_guest(char **arguments, pid_t parent, int report)
{
	sigset_t none;
	int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) /* the guard died before it could have been noticed */
		_exit(127);
	setsid();
	dup2(nothing, 0);
	dup2(log_file, 1);
	dup2(log_file, 2);
	signal(SIGHUP, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execvp(arguments[0], arguments);
	int error = errno;
	if (write(report, &error, sizeof error) < 0)
		_exit(126);
	_exit(127);
}

static void start_guest(char **arguments)
{
	int ends[2];
	pid_t self = getpid();
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		refuse("cannot make a pipe: %s", strerror(errno));
	exec_pipe = ends[0];
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (!set_deadline(guest.deadline_ms))
		refuse("cannot set the timer: %s", strerror(errno));
	guest.pid = fork();
	if (guest.pid < 0) {
		unlink(guest.socket_path);
		refuse("cannot fork: %s", strerror(errno));
	}
	if (guest.pid == 0)
		become_guest(arguments, self, ends[1]);
	close(ends[1]);
}

/* After the fork, so that the guest does not inherit it. All of it is an improvement, not a need. */
static void become_urgent(void)
{
	struct sched_param lowest = { .sched_priority = 1 };
	(void)mlockall(MCL_CURRENT | MCL_FUTURE);
	(void)setpriority(PRIO_PROCESS, 0, -20);
	(void)sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest);
}

/* The pipe closes when the guest's program has begun, or brings the reason why it could not. */
static void started(const char *program)
{
	int error = 0;
	ssize_t bytes = read(exec_pipe, &error, sizeof error);
	if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (bytes > 0) {
		unlink(guest.socket_path);
		refuse("cannot start %s: %s", program, strerror(error));
	}
	close(exec_pipe);
	exec_pipe = -1;
	printf("ready %d\n", guest.pid);
	fflush(stdout);
	int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	dup2(nothing, 0);
	dup2(nothing, 1);
	dup2(nothing, 2);
	close(nothing);
}

static void read_signals(void)
{
	struct signalfd_siginfo info;
	while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		ending = true;
		signal_guest(SIGKILL);
	}
	watch();
}

int main(int count, char **values)
{
	for (struct client *client = clients; client < clients + MAX_CLIENTS; client++)
		client->fd = -1;
	char **arguments = read_arguments(count, values);
#ifdef SYS_close_range
	syscall(SYS_close_range, 3U, ~0U, 0U); /* nothing of the daemon's may live on in the guest */
#endif
	/* Fails for the leader of a process group, which a shell's foreground job is: it may stay there. */
	(void)setsid();
	prctl(PR_SET_NAME, "holdfast-guard");
	open_log();
	open_kernel_events();
	open_socket();
	start_guest(arguments);
	become_urgent();

	for (;;) {
		struct pollfd fds[MAX_CLIENTS + 4] = {
			{ .fd = timer, .events = POLLIN },
			{ .fd = signals, .events = POLLIN },
			{ .fd = exec_pipe, .events = POLLIN },
			{ .fd = listener, .events = POLLIN },
		};
		for (int i = 0; i < MAX_CLIENTS; i++) {
			bool may_speak = clients[i].waits == NOTHING && clients[i].in_bytes < IN_BYTES;
			fds[4 + i].fd = clients[i].fd;
			fds[4 + i].events = (short)((may_speak ? POLLIN : 0) | (clients[i].out_bytes > 0 ? POLLOUT : 0));
		}
		int ready = poll(fds, MAX_CLIENTS + 4, -1);
		turn++;
		check_deadline();
		if (ready < 0)
			continue;
		if (fds[0].revents != 0) {
			uint64_t times; /* an extended deadline leaves nothing to read, which is fine */
			if (read(timer, &times, sizeof times) < 0 && errno != EAGAIN && guest.state == RUNNING)
				pause_guest(true);
		}
		if (fds[1].revents != 0)
			read_signals();
		if (fds[2].revents != 0)
			started(arguments[0]);
		for (int i = 0; i < MAX_CLIENTS; i++) {
			struct client *client = &clients[i];
			if (client->fd < 0 || client->fd != fds[4 + i].fd)
				continue;
			if (fds[4 + i].revents & POLLOUT)
				client_flush(client);
			if (client->fd >= 0 && fds[4 + i].revents & POLLIN)
				client_read(client);
			else if (client->fd >= 0 && fds[4 + i].revents & (POLLHUP | POLLERR))
				client_drop(client);
		}
		/* What a client sent while it waited is done as soon as it waits no more. */
		for (int i = 0; i < MAX_CLIENTS; i++)
			if (clients[i].fd >= 0 && clients[i].in_bytes > 0)
				client_commands(&clients[i]);
		if (fds[3].revents != 0)
			client_accept();
		if (ending && guest.state == EXITED) {
			unlink(guest.socket_path);
			exit(0);
		}
	}
}
