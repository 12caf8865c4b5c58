// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/* bcc includes this name; nothing of it is used here. */
