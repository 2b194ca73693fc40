/*
 * cachedir.h: the folder for what is kept between runs only to save time: $XDG_CACHE_HOME/unet, or
 * ~/.cache/unet. It may be deleted at any time.
 */
#ifndef UNET_RUNTIME_CACHEDIR_H
#define UNET_RUNTIME_CACHEDIR_H

/*
 * The path of a file in the folder, which is made when it is missing; malloc'ed. NULL when the
 * environment variable that switches this use off is "off", when there is no home, or when the
 * folder cannot be made.
 */
char *cachedir_path(const char *switch_variable, const char *file_name);

#endif
