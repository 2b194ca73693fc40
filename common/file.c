/*
 * file.c: whole files in and out. A file is written beside its target under a temporary name,
 * flushed, and renamed over it; a target that is no regular file (a pipe, /dev/stdout) is written
 * directly.
 */
#define _XOPEN_SOURCE 700 /* realpath */
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void *allocate(size_t size_bytes) {
    void *memory = malloc(size_bytes);
    if (memory == NULL) {
        fprintf(stderr, "error: out of memory (%zu bytes wanted)\n", size_bytes);
        exit(4);
    }
    return memory;
}

static char *copy_text(const char *text) {
    size_t size_bytes = strlen(text) + 1;
    return memcpy(allocate(size_bytes), text, size_bytes);
}

#define MOST_OF_A_STREAM ((size_t)1 << 30) /* of what is no regular file: /dev/zero has no end */

/* Reads to the end, growing: the size a file claims may be wrong (pipes, /proc). */
static bool read_stream(FILE *stream, size_t expected, size_t most, uint8_t **data_out,
                        size_t *size_out) {
    size_t capacity = expected + 1, size = 0;
    uint8_t *data = allocate(capacity);
    for (;;) {
        size += fread(data + size, 1, capacity - size, stream);
        if (size < capacity)
            break;
        if (size > most) {
            free(data);
            errno = EFBIG;
            return false;
        }
        if (capacity > SIZE_MAX / 2 || (data = realloc(data, capacity * 2)) == NULL) {
            fprintf(stderr, "error: out of memory (reading a file of over %zu bytes)\n", size);
            exit(4);
        }
        capacity *= 2;
    }
    if (ferror(stream)) {
        free(data);
        return false;
    }
    data[size] = 0;
    *data_out = data;
    *size_out = size;
    return true;
}

bool file_read(const char *path, uint8_t **data_out, size_t *size_out, struct err *err) {
    *data_out = NULL;
    *size_out = 0;
    FILE *stream = fopen(path, "rb");
    if (stream == NULL)
        return err_set(err, ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat info;
    bool good = fstat(fileno(stream), &info) == 0;
    if (good && S_ISDIR(info.st_mode)) {
        fclose(stream);
        return err_set(err, ERR_IO, "%s: is a directory, not a file", path);
    }
    errno = 0;
    good = good &&
           read_stream(stream, info.st_size > 0 ? (size_t)info.st_size : 4095,
                       S_ISREG(info.st_mode) ? SIZE_MAX : MOST_OF_A_STREAM, data_out, size_out);
    if (!good)
        err_set(err, ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    fclose(stream);
    return good;
}

bool file_write(const char *path, const void *data, size_t size_bytes, struct err *err) {
    struct file_writer writer;
    if (!file_writer_open(&writer, path, err))
        return false;
    /* An error of fwrite is seen, with its reason, by the commit. */
    if (size_bytes > 0 && fwrite(data, 1, size_bytes, writer.stream) != size_bytes) {
        err_set(err, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
        file_writer_abandon(&writer);
        return false;
    }
    return file_writer_commit(&writer, err);
}

/* Creates PATH.PID-N.tmp, a name nobody else uses; -1 with errno when that fails. */
static int create_beside(struct file_writer *writer, mode_t mode) {
    const size_t room = strlen(writer->path) + 48;
    writer->temporary_path = allocate(room);
    int descriptor = -1;
    for (unsigned n = 0; n < 1000; n++) {
        snprintf(writer->temporary_path, room, "%s.%ld-%u.tmp", writer->path, (long)getpid(), n);
        descriptor = open(writer->temporary_path, O_WRONLY | O_CREAT | O_EXCL, mode);
        if (descriptor >= 0 || errno != EEXIST)
            break;
    }
    return descriptor;
}

bool file_writer_open(struct file_writer *writer, const char *path, struct err *err) {
    memset(writer, 0, sizeof(*writer));
    struct stat info;
    const bool there = stat(path, &info) == 0;
    if (there && S_ISDIR(info.st_mode))
        return err_set(err, ERR_IO, "%s: cannot write: it is a directory", path);
    if (there && !S_ISREG(info.st_mode)) {
        writer->path = copy_text(path);
        writer->stream = fopen(path, "wb");
    } else {
        /* Through a symbolic link, the file it names is replaced, not the link. */
        writer->path = there ? realpath(path, NULL) : NULL;
        if (writer->path == NULL)
            writer->path = copy_text(path);
        int descriptor = create_beside(writer, there ? (info.st_mode & 0777) : 0666);
        if (descriptor >= 0)
            writer->stream = fdopen(descriptor, "wb");
    }
    if (writer->stream == NULL) {
        err_set(err, ERR_IO, "%s: cannot create: %s", path, strerror(errno));
        if (errno == ENOENT)
            err_hint(err, "create the directory first, or choose another place");
        free(writer->temporary_path);
        free(writer->path);
        memset(writer, 0, sizeof(*writer));
        return false;
    }
    return true;
}

/* The rename is durable only when the directory is on disk too. A file system that cannot do this
   is no reason to call the write failed. */
static void sync_directory(const char *path) {
    char *directory = copy_text(path);
    char *slash = strrchr(directory, '/');
    if (slash != NULL)
        slash[slash == directory ? 1 : 0] = '\0';
    int descriptor = open(slash != NULL ? directory : ".", O_RDONLY);
    if (descriptor >= 0) {
        (void)fsync(descriptor);
        close(descriptor);
    }
    free(directory);
}

/* Why an earlier write failed, whose reason is lost: the next one fails for the same, as a rule.
   The file will be thrown away. */
static int ask_again(FILE *stream) {
    static const char zeros[1 << 16];
    clearerr(stream);
    errno = 0;
    const bool good = fwrite(zeros, 1, sizeof(zeros), stream) == sizeof(zeros);
    return good && fflush(stream) == 0 ? 0 : errno;
}

bool file_writer_commit(struct file_writer *writer, struct err *err) {
    const bool has_failed = ferror(writer->stream) != 0;
    errno = 0;
    bool good = !has_failed && fflush(writer->stream) == 0;
    if (good && writer->temporary_path != NULL)
        good = fsync(fileno(writer->stream)) == 0 || errno == EINVAL || errno == ENOTSUP;
    int cause = errno;
    if (has_failed && writer->temporary_path != NULL)
        cause = ask_again(writer->stream);
    if (fclose(writer->stream) != 0 && good) {
        good = false;
        cause = errno;
    }
    writer->stream = NULL;
    if (good && writer->temporary_path != NULL &&
        rename(writer->temporary_path, writer->path) != 0) {
        good = false;
        cause = errno;
    }
    if (good) {
        if (writer->temporary_path != NULL)
            sync_directory(writer->path);
        free(writer->temporary_path);
        free(writer->path);
        memset(writer, 0, sizeof(*writer));
        return true;
    }
    err_set(err, ERR_IO, "%s: cannot write: %s", writer->path,
            cause != 0 ? strerror(cause) : "an earlier write failed");
    if (cause == ENOSPC)
        err_hint(err, "free some space, or choose another disk");
    file_writer_abandon(writer);
    return false;
}

void file_writer_abandon(struct file_writer *writer) {
    if (writer->stream != NULL)
        fclose(writer->stream);
    if (writer->temporary_path != NULL)
        unlink(writer->temporary_path);
    free(writer->temporary_path);
    free(writer->path);
    memset(writer, 0, sizeof(*writer));
}

bool file_make_directories(const char *path, struct err *err) {
    char *part = copy_text(path);
    bool good = true;
    for (char *at = part; good && *at != '\0';) {
        at += strspn(at, "/");
        at += strcspn(at, "/");
        const char end = *at;
        *at = '\0';
        if (part[0] != '\0' && !file_is_directory(part) && mkdir(part, 0777) != 0 &&
            !(errno == EEXIST && file_is_directory(part)))
            good = err_set(err, ERR_IO, "%s: cannot make the directory: %s", part, strerror(errno));
        *at = end;
    }
    free(part);
    return good;
}

bool file_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool file_is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *file_stem(const char *path) {
    const char *slash = strrchr(path, '/');
    char *stem = copy_text(slash != NULL ? slash + 1 : path);
    char *dot = strrchr(stem, '.');
    if (dot != NULL && dot != stem)
        *dot = '\0';
    return stem;
}
