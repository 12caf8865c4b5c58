// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/* The oldest kernel that is supported; bcc sets the running kernel's number itself where it matters. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)
