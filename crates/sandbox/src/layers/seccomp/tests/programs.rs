//! Ordinary programs do their ordinary work under the filter.
//!
//! A shell and a C compiler must be there. The others are run where they are installed; a machine that is meant to
//! have them says so, and then their absence is a failure: `REQUIEM_TEST_EXPECT=programs=python3+node+java`.

use std::env;
use std::path::Path;
use std::process::Command;

use super::kernel::{compile, filtered, text};

/// Runs `program` under the filter in `folder` and wants success and `expected` on its output.
fn works(folder: &Path, program: &str, args: &[&str], expected: &str) {
    let mut command = filtered(program, args);
    let output = command.current_dir(folder).env("HOME", folder).output().unwrap();
    let said = text(&output);
    assert!(output.status.success() && said.contains(expected), "{program} {args:?}: {said}");
}

/// As [`works`], for a program that not every machine has.
fn works_if_installed(folder: &Path, program: &str, args: &[&str], expected: &str) {
    let installed =
        Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap().status.success();
    if installed {
        works(folder, program, args, expected);
        return;
    }
    let wanted = env::var("REQUIEM_TEST_EXPECT").unwrap_or_default();
    let wanted =
        wanted.split(',').find_map(|part| part.strip_prefix("programs=")).unwrap_or_default().to_owned();
    assert!(
        !wanted.split('+').any(|name| name == program),
        "{program} is expected on this machine and is not there"
    );
    println!("not on this machine: {program}");
}

#[test]
fn shell_pipelines() {
    let folder = tempfile::tempdir().unwrap();
    let script = "mkdir a && echo one > a/f && ln a/f a/g && mv a/f a/h && cp a/h b && ls -l a | wc -l && \
                  (sleep 0.01 & wait) && chmod 600 b && touch -d 1999-01-01 b && find . | sort | tr -d '\\n' && \
                  mkfifo p && (cat p &) && echo through > p && kill -0 $$ && cat /proc/self/status | grep Seccomp:";
    works(folder.path(), "sh", &["-ec", script], "Seccomp:\t2");
}

#[test]
fn a_c_compiler_and_what_it_compiles() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("m.c"),
        "#include <stdio.h>\nint main(void){puts(\"made\");return 0;}\n",
    )
    .unwrap();
    works(folder.path(), "sh", &["-ec", "cc -O2 -pipe -g -o m m.c && ./m"], "made");
}

#[test]
fn make_in_parallel() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "all: a b c\n\t@echo all made\na b c:\n\t@sleep 0.01; echo $@ > $@\n";
    std::fs::write(folder.path().join("Makefile"), rules).unwrap();
    works_if_installed(folder.path(), "make", &["-j3"], "all made");
}

/// Threads, timers, unix and loopback sockets, System V and POSIX shared memory, as C programs use them.
#[test]
fn the_c_library() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path(), "libc", LIBC);
    works(folder.path(), &program, &[], "all good");
}

#[test]
fn python() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.py"), PYTHON).unwrap();
    works_if_installed(folder.path(), "python3", &["t.py"], "all good");
}

#[test]
fn node() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.js"), NODE).unwrap();
    works_if_installed(folder.path(), "node", &["t.js"], "all good");
}

#[test]
fn java() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("T.java"), JAVA).unwrap();
    works_if_installed(folder.path(), "java", &["T.java"], "all good");
}

/// The Go tool is a Go program itself: threads, signals, polling, children. (`go run` works, too, but compiles the
/// standard library first, which takes a minute where it is not cached.)
#[test]
fn go() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.go"), "package main\nfunc main() {  }\n").unwrap();
    works_if_installed(folder.path(), "go", &["list", "std"], "net/http");
    works_if_installed(folder.path(), "go", &["fmt", "t.go"], "t.go");
}

#[test]
fn git() {
    let folder = tempfile::tempdir().unwrap();
    let script = "git init -q . && echo one > f && git add f && git -c user.name=n -c user.email=e@e commit -qm m && \
                  git gc -q && git clone -q . ../$(basename $PWD)/c && git -C c log --format=%s";
    works_if_installed(folder.path(), "git", &["--version"], "git version");
    works_if_installed(folder.path(), "git", &["-c", &format!("alias.all=!{script}"), "all"], "m\n");
}

const LIBC: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#define WANT(x) do { if (!(x)) { printf("line %d: %s: %s\n", __LINE__, #x, strerror(errno)); return 1; } } while (0)
extern char **environ;
static void *body(void *arg) { return arg; }
int main(void) {
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) WANT(!pthread_create(&threads[i], NULL, body, NULL));
    for (int i = 0; i < 8; i++) WANT(!pthread_join(threads[i], NULL));
    pid_t pid; int status; char *argv[] = {"true", NULL};
    WANT(!posix_spawnp(&pid, "true", NULL, NULL, argv, environ) && waitpid(pid, &status, 0) == pid && !status);
    WANT(!system("exit 0"));
    int pair[2]; WANT(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP); WANT(server >= 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    WANT(!bind(server, (void *)&at, sizeof at) && !listen(server, 1));
    socklen_t length = sizeof at; WANT(!getsockname(server, (void *)&at, &length));
    int client = socket(AF_INET, SOCK_STREAM, 0); WANT(client >= 0 && !connect(client, (void *)&at, sizeof at));
    WANT(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) == -1 && errno == EPROTONOSUPPORT);
    WANT(socket(AF_INET, SOCK_STREAM, 262 /* MPTCP */) == -1 && errno == EPROTONOSUPPORT);
    WANT(socket(AF_NETLINK, SOCK_RAW, 0) == -1 && errno == EAFNOSUPPORT);
    WANT(socket(AF_ALG, SOCK_SEQPACKET, 0) == -1 && errno == EAFNOSUPPORT);
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    WANT(!getaddrinfo("localhost", "80", &hints, &found));
    int shm = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600); WANT(shm >= 0);
    void *mapped = shmat(shm, NULL, 0); WANT(mapped != (void *)-1 && !shmctl(shm, IPC_RMID, NULL));
    int memory = memfd_create("m", MFD_CLOEXEC); WANT(memory >= 0 && !ftruncate(memory, 4096));
    WANT(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0) != MAP_FAILED);
    int poll = epoll_create1(0), event = eventfd(1, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
    WANT(poll >= 0 && event >= 0 && timer >= 0 && inotify_init1(0) >= 0);
    struct epoll_event wanted = {.events = EPOLLIN}; WANT(!epoll_ctl(poll, EPOLL_CTL_ADD, event, &wanted));
    WANT(epoll_wait(poll, &wanted, 1, 0) == 1);
    struct timespec moment = {0, 1000}; WANT(!nanosleep(&moment, NULL));
    WANT(unshare(0) == 0 && unshare(CLONE_NEWUSER) == -1 && errno == EPERM);
    puts("all good");
    return 0;
}
"#;

const PYTHON: &str = r"
import asyncio, concurrent.futures, multiprocessing, os, socket, sqlite3, subprocess, tempfile, threading
assert subprocess.run(['sh', '-c', 'echo hi'], capture_output=True).stdout == b'hi\n'
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert sum(pool.map(lambda n: n * n, range(10))) == 285
with multiprocessing.get_context('fork').Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
async def talk():
    async def echo(reader, writer):
        writer.write(await reader.readline()); await writer.drain(); writer.close()
    server = await asyncio.start_server(echo, '127.0.0.1', 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b'hello\n')
    assert await reader.readline() == b'hello\n'
    process = await asyncio.create_subprocess_exec('true')
    assert await process.wait() == 0
asyncio.run(talk())
db = sqlite3.connect(os.path.join(tempfile.mkdtemp(), 'db'))
db.execute('create table t (a)'); db.execute('insert into t values (1)'); db.commit()
assert db.execute('select a from t').fetchall() == [(1,)]
print('all good')
";

const NODE: &str = r"
const { Worker } = require('worker_threads');
const { execFileSync } = require('child_process');
const http = require('http'), fs = require('fs'), crypto = require('crypto');
if (execFileSync('echo', ['hi']).toString() !== 'hi\n') throw new Error('child');
new Worker('require(`worker_threads`).parentPort.postMessage(6 * 7)', { eval: true }).once('message', answer => {
  if (answer !== 42) throw new Error('worker');
  const server = http.createServer((request, response) => response.end('hello'));
  server.listen(0, '127.0.0.1', () => http.get({ port: server.address().port, host: '127.0.0.1' }, response => {
    response.on('data', data => {
      fs.promises.writeFile('out', crypto.randomBytes(8)).then(() => {
        if (data.toString() === 'hello') console.log('all good');
        server.close();
      });
    });
  }));
});
";

const JAVA: &str = r#"
import java.net.*;
import java.nio.file.*;
import java.util.concurrent.*;
public class T {
    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        if (pool.submit(() -> 42).get() != 42) throw new AssertionError();
        pool.shutdown();
        try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
             Socket client = new Socket(server.getInetAddress(), server.getLocalPort())) {
            server.accept().getOutputStream().write(7);
            if (client.getInputStream().read() != 7) throw new AssertionError();
        }
        if (new ProcessBuilder("true").start().waitFor() != 0) throw new AssertionError();
        Files.writeString(Path.of("out"), "text");
        System.gc();
        System.out.println("all good");
    }
}
"#;
