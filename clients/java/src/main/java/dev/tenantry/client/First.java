package dev.tenantry.client;

import com.google.protobuf.ListValue;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import dev.tenantry.v1.AssignRoleRequest;
import dev.tenantry.v1.AuthServiceGrpc;
import dev.tenantry.v1.CheckRequest;
import dev.tenantry.v1.CreateRoleRequest;
import dev.tenantry.v1.CreateUserRequest;
import dev.tenantry.v1.PermissionServiceGrpc;
import dev.tenantry.v1.RegisterRequest;
import dev.tenantry.v1.RoleLevel;
import dev.tenantry.v1.RoleServiceGrpc;
import dev.tenantry.v1.UserServiceGrpc;
import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.StatusRuntimeException;
import java.io.PrintStream;
import java.util.List;
import java.util.Optional;
import java.util.UUID;

/** Creates a tenant, a user and a role, and checks what the user may do. */
public final class First {
  private First() {}

  public static void main(String[] arguments) {
    var address = Optional.ofNullable(System.getenv("TENANTRY_ADDR")).orElse("127.0.0.1:50051");
    // For a server on another machine use TlsChannelCredentials.create().
    var channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
    try {
      run(channel, System.out);
    } finally {
      channel.shutdown();
    }
  }

  static void run(Channel channel, PrintStream out) {
    var tenant = "acme-" + UUID.randomUUID().toString().substring(0, 8);
    var email = "ada@acme.test";
    var password = "correct horse battery";
    AuthServiceGrpc.newBlockingStub(channel)
        .register(
            RegisterRequest.newBuilder()
                .setEmail(email)
                .setPassword(password)
                .setOrganizationName("Acme")
                .setOrganizationSlug(tenant)
                .build());
    var session = Session.signIn(channel, tenant, email, password);
    var user = createUserWithRole(channel, session);

    var permissions = session.as(PermissionServiceGrpc.newBlockingStub(channel));
    for (var region : List.of("eu", "asia")) {
      var request =
          CheckRequest.newBuilder()
              .setUserId(user)
              .setPermission("invoice:read")
              .setScope(Struct.newBuilder().putFields("region", text(region)))
              .build();
      var response = session.call(() -> permissions.check(request));
      var decision = response.getAllowed() ? "allowed" : "denied";
      out.printf("invoice:read in %s: %s (%s)%n", region, decision, response.getReason());
    }

    var users = session.as(UserServiceGrpc.newBlockingStub(channel));
    try {
      var request = CreateUserRequest.newBuilder().setEmail("grace").build();
      session.call(() -> users.createUser(request));
    } catch (StatusRuntimeException error) {
      Details.violations(error)
          .forEach(
              (field, description) ->
                  out.printf("refused (%s): %s: %s%n", Details.reason(error), field, description));
    }
    session.signOut();
  }

  /** Creates a user who has all invoice permissions in the regions eu and us. */
  private static String createUserWithRole(Channel channel, Session session) {
    var users = session.as(UserServiceGrpc.newBlockingStub(channel));
    var newUser = CreateUserRequest.newBuilder().setEmail("grace@acme.test").build();
    var user = session.call(() -> users.createUser(newUser)).getUser();
    var roles = session.as(RoleServiceGrpc.newBlockingStub(channel));
    var newRole =
        CreateRoleRequest.newBuilder()
            .setName("billing")
            .setLevel(RoleLevel.ROLE_LEVEL_MEMBER)
            .addPermissions("invoice:*")
            .build();
    var role = session.call(() -> roles.createRole(newRole)).getRole();
    var regions = ListValue.newBuilder().addValues(text("eu")).addValues(text("us"));
    var scope =
        Struct.newBuilder().putFields("region", Value.newBuilder().setListValue(regions).build());
    var assignment =
        AssignRoleRequest.newBuilder()
            .setUserId(user.getId())
            .setRoleId(role.getId())
            .setScope(scope)
            .build();
    session.call(() -> roles.assignRole(assignment));
    return user.getId();
  }

  private static Value text(String value) {
    return Value.newBuilder().setStringValue(value).build();
  }
}
