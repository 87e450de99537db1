<?php
// Sets a WordPress up whose files lie in the working folder, with a user who may upload; prints the user's
// application password as JSON.
define('WP_INSTALLING', true);
require 'wp-load.php';
require 'wp-admin/includes/upgrade.php';

function wp_new_blog_notification() {} // there is no mail server

wp_install('Padaria', 'admin', 'admin@example.org', true, '', wp_generate_password());
update_option('permalink_structure', '/%postname%/'); // without it there is no /wp-json/
$user = wp_insert_user(['user_login' => 'riacho', 'user_pass' => wp_generate_password(), 'role' => $argv[1]]);
[$password] = WP_Application_Passwords::create_new_application_password($user, ['name' => 'riacho']);
echo json_encode(['user' => 'riacho', 'password' => $password]);
