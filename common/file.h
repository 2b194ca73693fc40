/*
 * file.h: whole files in and out. Every write goes to a temporary file beside the target, is
 * flushed to disk and renamed, so that a reader sees the old content or the new, never half of it;
 * a failed write leaves nothing behind.
 */
#ifndef UNET_FILE_H
#define UNET_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

/* Reads a whole file into memory that the caller frees; one zero byte follows the content. ERR_IO.
 */
bool file_read(const char *path, uint8_t **data_out, size_t *size_out, struct err *err);

/* Writes a file atomically. ERR_IO. */
bool file_write(const char *path, const void *data, size_t size_bytes, struct err *err);

/* A file written in pieces: create, write to stream, then commit (atomic) or abandon. */
struct file_writer {
    FILE *stream;
    char *path, *temporary_path;
};
bool file_writer_open(struct file_writer *writer, const char *path, struct err *err);
bool file_writer_commit(struct file_writer *writer, struct err *err);
void file_writer_abandon(struct file_writer *writer); /* NULL-safe on a closed writer */

/* Makes a directory and its parents; no error when it is there. */
bool file_make_directories(const char *path, struct err *err);
bool file_exists(const char *path);
bool file_is_directory(const char *path);

/* "dir/stem.png" -> "stem"; the result is malloc'ed. */
char *file_stem(const char *path);

#endif
